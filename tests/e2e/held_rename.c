/*
** Preloaded (LD_PRELOAD) into a program under test: its first rename of a file to …/state-redo waits.
**
**   HELD_RENAME=FILE     says so by making FILE.held, and goes on once FILE.go exists, after 20 s at the latest
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int rename(const char* from, const char* to) {
  static int done;
  const char* held = getenv("HELD_RENAME");
  const char* name = strrchr(to, '/');
  int (*real)(const char*, const char*);
  *(void**)&real = dlsym(RTLD_NEXT, "rename");
  if (held != NULL && name != NULL && strcmp(name, "/state-redo") == 0 && !__sync_fetch_and_or(&done, 1)) {
    char path[4096];
    int i;
    snprintf(path, sizeof path, "%s.held", held);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    snprintf(path, sizeof path, "%s.go", held);
    for (i = 0; i < 20000 && access(path, F_OK) != 0; i++) usleep(1000);
  }
  return real(from, to);
}

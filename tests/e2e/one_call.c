/*
** Preloaded (LD_PRELOAD) into a program under test: one of its calls waits, or fails.
**
**   HELD_RENAME=FILE          the first rename to …/state-redo says so by making FILE.held, and goes on once FILE.go
**                             exists, after 20 s at the latest
**   FULL_ONCE=open | rename   the first such call for a snapshot in the spool finds the disk full
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int IsFull(const char* call, const char* path) {
  static int done;
  const char* full = getenv("FULL_ONCE");
  const size_t size = strlen(path);
  if (full == NULL || strcmp(full, call) != 0 || strstr(path, "/snapshot-") == NULL || size < 4 ||
      strcmp(path + size - 4, ".tmp") != 0 || __sync_fetch_and_or(&done, 1))
    return 0;
  fputs("one_call: the disk is full\n", stderr);
  errno = ENOSPC;
  return 1;
}

static int Open(const char* name, const char* path, int flags, mode_t mode) {
  int (*real)(const char*, int, ...);
  *(void**)&real = dlsym(RTLD_NEXT, name);
  return IsFull("open", path) ? -1 : real(path, flags, mode);
}

int open(const char* path, int flags, ...) {
  va_list more;
  mode_t mode;
  va_start(more, flags);
  mode = va_arg(more, mode_t);
  va_end(more);
  return Open("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list more;
  mode_t mode;
  va_start(more, flags);
  mode = va_arg(more, mode_t);
  va_end(more);
  return Open("open64", path, flags, mode);
}

int rename(const char* from, const char* to) {
  static int done;
  const char* held = getenv("HELD_RENAME");
  const char* name = strrchr(to, '/');
  int (*real)(const char*, const char*);
  *(void**)&real = dlsym(RTLD_NEXT, "rename");
  if (IsFull("rename", from)) return -1;
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

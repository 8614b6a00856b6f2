/*
** Preloaded (LD_PRELOAD) into a program under test: threads begin late, or not at all.
**
**   LATE_THREADS=MS      a new thread waits so long before it runs
**   NO_THREADS=1         none can be started (EAGAIN), as at a limit on processes
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
  void* (*body)(void*);
  void* argument;
} Late;

static void* Run(void* late) {
  Late thread = *(Late*)late;
  free(late);
  usleep((useconds_t)atoi(getenv("LATE_THREADS")) * 1000);
  return thread.body(thread.argument);
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) {
  int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  Late* late;
  *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  if (getenv("NO_THREADS") != NULL) return EAGAIN;
  if (getenv("LATE_THREADS") == NULL) return real(thread, attributes, body, argument);
  late = malloc(sizeof *late);
  if (late == NULL) return EAGAIN;
  late->body = body;
  late->argument = argument;
  return real(thread, attributes, Run, late);
}

/*
** Preloaded (LD_PRELOAD) into a program under test: calls fail in turn.
**
**   FAIL_MALLOC=N      the Nth malloc, calloc, realloc, memalign or operator new since failing_arm() fails …
**   FAIL_THREAD=N      the Nth pthread_create fails (EAGAIN) …
**   FAIL_RUN=K         … and the K - 1 calls after it; 1 unless set
**   FAIL_COUNTS=FILE   at exit the numbers of both kinds of calls are written there
**
** Nothing is counted before the program calls failing_arm(), which it finds by dlsym(). A signal that ends the program
** then prints its stack: library(+offset), for addr2line.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* glibc's own, so that no dlsym (which allocates) is needed on the way */
extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static atomic_bool armed;
static atomic_long allocations, threads;
static long fail_malloc, fail_thread, fail_run = 1;

static long Number(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text == NULL ? otherwise : atol(text);
}

static void Stack(int number) {
  void* frames[40];
  armed = 0;
  backtrace_symbols_fd(frames, backtrace(frames, 40), 2);
  raise(number); /* SA_RESETHAND: this time it ends the program */
}

void failing_arm(void) {
  struct sigaction action = {0};
  void* frame;
  action.sa_handler = Stack;
  action.sa_flags = SA_RESETHAND | SA_NODEFER;
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGABRT, &action, NULL);
  backtrace(&frame, 1); /* loads what it needs, while there is memory */
  fail_malloc = Number("FAIL_MALLOC", 0);
  fail_thread = Number("FAIL_THREAD", 0);
  fail_run = Number("FAIL_RUN", 1);
  armed = 1;
}

static int Fails(atomic_long* count, const long* first) {
  long n;
  if (!armed) return 0;
  n = ++*count;
  return *first > 0 && n >= *first && n < *first + fail_run;
}

static void* NoMemory(void) {
  errno = ENOMEM;
  return NULL;
}

void* malloc(size_t n) {
  return Fails(&allocations, &fail_malloc) ? NoMemory() : __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  return Fails(&allocations, &fail_malloc) ? NoMemory() : __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  return Fails(&allocations, &fail_malloc) ? NoMemory() : __libc_realloc(p, n);
}
void* memalign(size_t alignment, size_t n) {
  return Fails(&allocations, &fail_malloc) ? NoMemory() : __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
  return memalign(alignment, n);
}
int posix_memalign(void** out, size_t alignment, size_t n) {
  void* p = memalign(alignment, n);
  if (p == NULL) return ENOMEM;
  *out = p;
  return 0;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*), void* argument) {
  static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (Fails(&threads, &fail_thread)) return EAGAIN;
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  return real(thread, attributes, body, argument);
}

__attribute__((destructor)) static void Report(void) {
  const char* name = getenv("FAIL_COUNTS");
  FILE* file;
  armed = 0;
  if (name == NULL || (file = fopen(name, "w")) == NULL) return;
  fprintf(file, "%ld %ld\n", allocations, threads);
  fclose(file);
}

// The functions that schedule.c's points lie in. Each calls the real one exactly once and returns its result.
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "schedule.h"

// --- threads

struct Start {
  void* (*run)(void*);
  void* argument;
  uint64_t identity;
  enum From from;
};

static void* RunThread(void* p) {
  const struct Start start = *(struct Start*)p;
  free(p);
  EnterThread(start.identity);
  Reach(kThreadStart, 0, start.from, NULL, 0, 0);
  return start.run(start.argument);
}

PUBLIC int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  const enum From from = Counts(CALLER);
  struct Start* start = from == 0 ? NULL : malloc(sizeof *start);
  if (start == NULL) return REAL(pthread_create)(thread, attributes, run, argument);
  *start = (struct Start){run, argument, NextThread(), from};
  const int rc = REAL(pthread_create)(thread, attributes, RunThread, start);
  if (rc != 0) free(start);
  return rc;
}

// A child that starts late.
PUBLIC pid_t fork(void) {
  const pid_t pid = REAL(fork)();
  if (pid == 0 && IsEnabled()) Reach(kFork, 1, kHost, NULL, 0, 0);
  return pid;
}

// --- locks among threads

PUBLIC int pthread_mutex_lock(pthread_mutex_t* mutex) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kMutexLock, 0, from, NULL, 0, 0);
  return REAL(pthread_mutex_lock)(mutex);
}

PUBLIC int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kMutexUnlock, 0, from, NULL, 0, 0);
  const int rc = REAL(pthread_mutex_unlock)(mutex);
  if (from == kReplica) Reach(kMutexUnlock, 1, from, NULL, 0, 0);
  return rc;
}

// std::shared_mutex.
PUBLIC int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kMutexLock, 0, from, NULL, 0, 0);
  return REAL(pthread_rwlock_rdlock)(lock);
}

PUBLIC int pthread_rwlock_wrlock(pthread_rwlock_t* lock) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kMutexLock, 0, from, NULL, 0, 0);
  return REAL(pthread_rwlock_wrlock)(lock);
}

PUBLIC int pthread_rwlock_unlock(pthread_rwlock_t* lock) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kMutexUnlock, 0, from, NULL, 0, 0);
  return REAL(pthread_rwlock_unlock)(lock);
}

PUBLIC int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kCondWait, 0, from, NULL, 0, 0);
  const int rc = REAL(pthread_cond_wait)(condition, mutex);
  if (from == kReplica) Reach(kCondWait, 1, from, NULL, 0, 0);
  return rc;
}

PUBLIC int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const struct timespec* until) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kCondWait, 0, from, NULL, 0, 0);
  const int rc = REAL(pthread_cond_timedwait)(condition, mutex, until);
  if (from == kReplica) Reach(kCondWait, 1, from, NULL, 0, 0);
  return rc;
}

PUBLIC int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                                  const struct timespec* until) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kCondWait, 0, from, NULL, 0, 0);
  const int rc = REAL(pthread_cond_clockwait)(condition, mutex, clock, until);
  if (from == kReplica) Reach(kCondWait, 1, from, NULL, 0, 0);
  return rc;
}

PUBLIC int pthread_cond_signal(pthread_cond_t* condition) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kCondSignal, 0, from, NULL, 0, 0);
  return REAL(pthread_cond_signal)(condition);
}

PUBLIC int pthread_cond_broadcast(pthread_cond_t* condition) {
  const enum From from = Counts(CALLER);
  if (from == kReplica) Reach(kCondSignal, 0, from, NULL, 0, 0);
  return REAL(pthread_cond_broadcast)(condition);
}

// libreplica calls futex(2) through syscall(2), as glibc has no function for it (base/futex.h).
PUBLIC long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
  va_end(list);
  const enum From from = number == SYS_futex ? Counts(CALLER) : 0;
  const enum Point point = (a[1] & FUTEX_CMD_MASK) == FUTEX_WAKE ? kFutexWake : kFutexWait;
  if (from != 0) Reach(point, 0, from, NULL, 0, (uint32_t)a[2]);
  const long rc = REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (from != 0) Reach(point, 1, from, NULL, 0, (uint32_t)a[2]);
  return rc;
}

// --- locks among processes

static int Fcntl(int (*real)(int, int, ...), const void* caller, int fd, int command, void* argument) {
  const bool locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  const enum From from = locks ? Counts(caller) : 0;
  if (from == 0) return real(fd, command, argument);
  const struct flock* lock = argument;
  const enum Point point = lock->l_type == F_UNLCK ? kUnlock : kLock;
  const uint32_t sort = (uint32_t)lock->l_type | (command == F_SETLKW || command == F_OFD_SETLKW ? 256 : 0);
  const int64_t at = lock->l_start;
  Reach(point, 0, from, NULL, at, sort);
  const int rc = real(fd, command, argument);
  Reach(point, 1, from, rc == 0 ? NULL : "refused", at, sort);
  return rc;
}

PUBLIC int fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  return Fcntl(REAL(fcntl), CALLER, fd, command, argument);
}

PUBLIC int fcntl64(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* argument = va_arg(list, void*);
  va_end(list);
  return Fcntl(REAL(fcntl64), CALLER, fd, command, argument);
}

// --- files

// Calls the real function with a point before and after it. Of SQLite's calls those count that change something another
// process sees.
#define AROUND(point, path, at, sort, type, call) \
  do {                                            \
    const enum From from = Counts(CALLER);        \
    if (from == 0) return call;                   \
    Reach(point, 0, from, path, at, sort);        \
    const type rc = call;                         \
    Reach(point, 1, from, path, at, sort);        \
    return rc;                                    \
  } while (0)

static mode_t ModeOf(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

PUBLIC int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = ModeOf(flags, list);
  va_end(list);
  AROUND(kOpen, path, flags, 0, int, REAL(open)(path, flags, mode));
}

PUBLIC int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = ModeOf(flags, list);
  va_end(list);
  AROUND(kOpen, path, flags, 0, int, REAL(open64)(path, flags, mode));
}

PUBLIC int close(int fd) {
  AROUND(kClose, NULL, fd, 0, int, REAL(close)(fd));
}

PUBLIC int unlink(const char* path) {
  AROUND(kUnlink, path, 0, 0, int, REAL(unlink)(path));
}

PUBLIC int rename(const char* from_path, const char* path) {
  AROUND(kRename, path, 0, 0, int, REAL(rename)(from_path, path));
}

PUBLIC int link(const char* from_path, const char* path) {
  AROUND(kLink, path, 0, 0, int, REAL(link)(from_path, path));
}

PUBLIC int ftruncate(int fd, off_t size) {
  AROUND(kTruncate, NULL, size, (uint32_t)fd, int, REAL(ftruncate)(fd, size));
}

PUBLIC int ftruncate64(int fd, off64_t size) {
  AROUND(kTruncate, NULL, size, (uint32_t)fd, int, REAL(ftruncate64)(fd, size));
}

PUBLIC ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  AROUND(kWrite, NULL, at, (uint32_t)size, ssize_t, REAL(pwrite)(fd, data, size, at));
}

PUBLIC ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  AROUND(kWrite, NULL, at, (uint32_t)size, ssize_t, REAL(pwrite64)(fd, data, size, at));
}

PUBLIC int fsync(int fd) {
  AROUND(kSync, NULL, fd, 0, int, REAL(fsync)(fd));
}

PUBLIC int fdatasync(int fd) {
  AROUND(kSync, NULL, fd, 0, int, REAL(fdatasync)(fd));
}

// Reads and looks of libreplica's only: between them and what is made of them others go on.
PUBLIC ssize_t pread64(int fd, void* data, size_t size, off64_t at) {
  const enum From from = Counts(CALLER);
  const ssize_t rc = REAL(pread64)(fd, data, size, at);
  if (from == kReplica) Reach(kRead, 1, from, NULL, at, (uint32_t)size);
  return rc;
}

PUBLIC int stat(const char* path, struct stat* st) {
  const enum From from = Counts(CALLER);
  const int rc = REAL(stat)(path, st);
  if (from == kReplica) Reach(kStat, 1, from, path, rc, 0);
  return rc;
}

PUBLIC int stat64(const char* path, struct stat64* st) {
  const enum From from = Counts(CALLER);
  const int rc = REAL(stat64)(path, st);
  if (from == kReplica) Reach(kStat, 1, from, path, rc, 0);
  return rc;
}

PUBLIC int statx(int folder, const char* path, int flags, unsigned mask, struct statx* st) {
  const enum From from = Counts(CALLER);
  const int rc = REAL(statx)(folder, path, flags, mask, st);
  if (from == kReplica) Reach(kStat, 1, from, path, rc, 0);
  return rc;
}

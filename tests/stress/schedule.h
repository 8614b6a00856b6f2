// What schedule.c offers to the interposed functions of schedule_calls.c.
#ifndef LIBREPLICA_TESTS_STRESS_SCHEDULE_H_
#define LIBREPLICA_TESTS_STRESS_SCHEDULE_H_

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)

// The numbers are part of the trace's format: traces.py has the same list.
enum Point {
  kThreadStart,
  kFork,
  kMutexLock,
  kMutexUnlock,
  kCondWait,
  kCondSignal,
  kFutexWait,
  kFutexWake,
  kLock,
  kUnlock,
  kOpen,
  kClose,
  kUnlink,
  kRename,
  kLink,
  kTruncate,
  kWrite,
  kRead,
  kSync,
  kStat,
  kKilled,
  kStarted,
};

// Where a call comes from; calls of the host are no points. kReplica also stands for the C++ runtime.
enum From { kHost = 1, kSqlite, kReplica };

// 0 when a call from there is no point.
enum From Counts(const void* caller);

// A point before (0) or after (1) a call: writes it into the trace, sleeps if so drawn, or ends the process. `path`,
// `at` and `sort` are for the trace: see struct Entry. Leaves errno as it is.
void Reach(enum Point point, int after, enum From from, const char* path, int64_t at, uint32_t sort);

// True when this process is scheduled at all.
int IsEnabled(void);

// For a thread that is about to be started: who it is. It calls EnterThread first.
uint64_t NextThread(void);
void EnterThread(uint64_t who);

// The function of that name in the next library in line.
void* FindNext(const char* name);

// The same with its type. Resolved at its first use, as calls may come before any constructor has run.
#define REAL(name)                                                            \
  ({                                                                          \
    static __typeof__(&name) _Atomic found;                                   \
    __typeof__(&name) f = atomic_load_explicit(&found, memory_order_relaxed); \
    if (f == NULL) {                                                          \
      f = (__typeof__(&name))FindNext(#name);                                 \
      atomic_store_explicit(&found, f, memory_order_relaxed);                 \
    }                                                                         \
    f;                                                                        \
  })

#endif  // LIBREPLICA_TESTS_STRESS_SCHEDULE_H_

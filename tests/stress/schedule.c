// Schedules for the stress tool: delays a program's threads at the points where threads, processes and files meet, so
// that orders of events come about which a quiet machine shows once in a million runs.
//
//   cc -std=gnu11 -O2 -shared -fPIC -fvisibility=hidden -o schedule.so schedule.c schedule_calls.c
//   LD_PRELOAD=$PWD/schedule.so SCHEDULE_SEED=7 SCHEDULE_TRACE=/tmp/run program
//
// It changes no result, no errno and no semantics: each interposed function calls the real one, exactly once, and may
// sleep before or after it. Only calls that come from libreplica, from SQLite, from the C++ runtime or from the replica
// command itself count as points; those of the host (Python's own locks) pass through. Without SCHEDULE_SEED all do.
//
//   SCHEDULE_SEED     number: which delays are drawn, and, unless SCHEDULE_PROFILE is set, from which profile
//   SCHEDULE_PROFILE  name of a profile (kProfiles), or "none": trace only
//   SCHEDULE_PROCESS  number of this process within its run; with the seed it decides what the process draws
//   SCHEDULE_KILL     n: the process kills itself with SIGKILL at one of its first 2 n points; 0: it does not. Not for
//                     what it forks
//   SCHEDULE_TRACE    folder: each process keeps its last points in a ring file there, which traces.py reads
//   SCHEDULE_RING     entries of that ring; default 1,024
//
// A forked child's number is made of its parent's and the count of forks; a host that hands out numbers calls
// schedule_process(number, kill) in the child. What a thread draws depends on the seed, the process's number and which
// child of which thread it is, so a run with the same numbers draws the same delays as long as its threads come to the
// same points.
//
// Fork, exec and signal handlers: all state is static and changed by atomics; no lock, no allocation but one for each
// thread that is started.
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "schedule.h"

// --- profiles

enum Group { kThreads, kMutexes, kWakes, kFileLocks, kFiles, kGroups };

static enum Group GroupOf(enum Point point) {
  if (point <= kFork) return kThreads;
  if (point <= kMutexUnlock) return kMutexes;
  if (point <= kFutexWake) return kWakes;
  if (point <= kUnlock) return kFileLocks;
  return kFiles;
}

// Chances are in 1/65,536 at each point. A short delay is 5 to 160 microseconds, a long one 1 to 100 milliseconds;
// small ones are the more frequent.
struct Chance {
  uint16_t short_one;
  uint16_t long_one;
};
struct Profile {
  const char* name;
  struct Chance groups[kGroups];
  uint8_t busy_processes;  // percent of processes that are delayed at all
  uint8_t slow_threads;    // percent of threads that draw at 16 times the chance
};
static const struct Profile kProfiles[] = {
    // name             threads          mutexes     wakes        file locks   files        processes, threads
    {"late-threads", {{6000, 40000}, {0, 0}, {300, 0}, {0, 0}, {0, 0}}, 100, 0},
    {"slow-locks", {{3000, 1000}, {600, 30}, {4000, 300}, {1500, 150}, {0, 0}}, 100, 0},
    {"slow-file-locks", {{0, 0}, {0, 0}, {0, 0}, {6000, 700}, {0, 0}}, 70, 0},
    {"slow-files", {{0, 0}, {0, 0}, {300, 0}, {300, 0}, {2500, 120}}, 80, 0},
    {"slow-threads", {{8000, 8000}, {150, 6}, {600, 60}, {600, 60}, {400, 30}}, 100, 25},
    {"slow-processes", {{8000, 20000}, {300, 15}, {1500, 250}, {1500, 250}, {900, 90}}, 30, 0},
    {"everything", {{6000, 12000}, {200, 8}, {1200, 100}, {1500, 120}, {900, 50}}, 90, 5},
};
#define PROFILES (sizeof kProfiles / sizeof kProfiles[0])

// --- the trace: one file a process, 128 bytes of head, then the ring

struct Entry {
  uint64_t nanos;   // CLOCK_MONOTONIC, when the point was reached
  uint32_t thread;  // tid
  uint16_t point;   // enum Point
  uint8_t after;    // 1: after the call, 0: before it
  uint8_t from;     // enum From
  uint32_t delay;   // microseconds slept here
  uint32_t sort;    // of a lock: its type (F_RDLCK …) and 256 for a blocking one; of a write: its length
  int64_t at;       // of a lock: its first byte; of a write: its offset; else a descriptor
  char text[32];    // end of the path
};
struct Trace {
  uint64_t magic;
  uint32_t version;
  uint32_t pid;
  uint64_t seed;
  uint64_t process;
  uint32_t entries;       // of the ring
  uint32_t killed;        // 1: it killed itself
  _Atomic uint64_t next;  // entries written so far
  uint64_t delayed;       // microseconds that all its threads slept
  char profile[24];
  char command[24];
  uint32_t parent;
  char spare[20];
};
_Static_assert(sizeof(struct Entry) == 64 && sizeof(struct Trace) == 128, "traces.py reads these");
#define TRACE_MAGIC 0x454c554445484353 /* "SCHEDULE" */

// --- state of the process

static bool enabled;                   // set once, by the constructor
static const struct Profile* profile;  // null: trace only
static uint64_t seed;
static _Atomic uint64_t process;     // number of this process
static _Atomic uint64_t forks;       // children forked so far, as part of their numbers
static _Atomic uint64_t points;      // reached so far
static _Atomic uint64_t kill_at;     // point at which it ends itself; 0: none
static _Atomic bool busy;            // this process is delayed
static _Atomic uint64_t slept;       // microseconds, of all threads
static _Atomic uint64_t begun;       // monotonic ns
static _Atomic uint64_t strangers;   // threads that others than libreplica have started
static struct Trace* _Atomic trace;  // null: not kept
static char trace_folder[256];
static uint32_t trace_entries = 1024;

// Of each thread. `stream` 0: it has not drawn yet.
#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))
THREAD_LOCAL uint64_t stream;
THREAD_LOCAL uint64_t identity;
THREAD_LOCAL uint32_t children;
THREAD_LOCAL uint32_t tid;
THREAD_LOCAL bool slow;
THREAD_LOCAL bool inside;  // in the middle of a point: what the point itself calls is none

static long (*real_syscall)(long, ...);

void* FindNext(const char* name) {
  // On x86-64 the condition variables have an older version, which an unversioned search may find.
  void* f = strncmp(name, "pthread_cond_", 13) == 0 ? dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2") : NULL;
  return f != NULL ? f : dlsym(RTLD_NEXT, name);
}

static long Syscall(long number, long a, long b, long c, long d) {
  if (real_syscall == NULL) real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  return real_syscall(number, a, b, c, d, 0L, 0L);
}

static uint64_t Nanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a + 0x9e3779b97f4a7c15 * (b + 1);
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

static uint64_t Draw(void) {
  stream += 0x9e3779b97f4a7c15;
  return Mix(stream, 0);
}

static void BeginThread(uint64_t who) {
  identity = who;
  children = 0;
  stream = Mix(Mix(seed, atomic_load(&process)), who) | 1;
  tid = (uint32_t)Syscall(SYS_gettid, 0, 0, 0, 0);
  slow = profile != NULL && Draw() % 100 < profile->slow_threads;
}

// --- which calls are points

static enum From Classify(const void* caller) {
  const char* name = "";
#if __GLIBC_PREREQ(2, 35)
  struct dl_find_object object;
  if (_dl_find_object((void*)caller, &object) != 0) return kHost;
  if (object.dlfo_link_map->l_name != NULL) name = object.dlfo_link_map->l_name;
#else
  Dl_info info;
  if (dladdr(caller, &info) == 0) return kHost;
  if (info.dli_fname != NULL) name = info.dli_fname;
#endif
  if (*name == 0) name = program_invocation_name;  // the program itself
  const char* slash = strrchr(name, '/');
  if (slash != NULL) name = slash + 1;
  if (strcmp(name, "replica") == 0 || strncmp(name, "libreplica", 10) == 0 || strncmp(name, "libstdc++", 9) == 0)
    return kReplica;
  if (strncmp(name, "libsqlite3", 10) == 0) return kSqlite;
  return kHost;
}

// The answers for code pages that calls came from. Libraries are not unloaded in the programs this is for.
static enum From FromWhere(const void* caller) {
  static _Atomic uint64_t known[512];
  const uint64_t page = (uint64_t)(uintptr_t)caller >> 12;
  _Atomic uint64_t* slot = &known[page % 512];
  const uint64_t seen = atomic_load_explicit(slot, memory_order_relaxed);
  if (seen >> 2 == page && (seen & 3) != 0) return (enum From)(seen & 3);
  const enum From from = Classify(caller);
  atomic_store_explicit(slot, page << 2 | from, memory_order_relaxed);
  return from;
}

// --- a point

static struct Entry* Note(enum Point point, int after, enum From from, uint64_t nanos, const char* path, int64_t at,
                          uint32_t sort) {
  struct Trace* t = atomic_load_explicit(&trace, memory_order_relaxed);
  if (t == NULL) return NULL;
  struct Entry* ring = (struct Entry*)(t + 1);
  struct Entry* e = &ring[atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed) % t->entries];
  e->nanos = nanos;
  e->thread = tid;
  e->point = (uint16_t)point;
  e->after = (uint8_t)after;
  e->from = (uint8_t)from;
  e->delay = 0;
  e->sort = sort;
  e->at = at;
  // By hand: where a sanitizer watches memcpy, two threads that meet in the ring would be an error.
  const size_t length = path == NULL ? 0 : strlen(path);
  const char* from_end = length < sizeof e->text ? path : path + length - sizeof e->text + 1;
  volatile char* out = e->text;
  for (size_t i = 0; i < sizeof e->text; i++) *out++ = from_end != NULL && *from_end != 0 ? *from_end++ : 0;
  return e;
}

// Between 1 and 2^doublings times `least`, the small ones the more frequent.
static uint64_t Skewed(uint64_t least, unsigned doublings) {
  const uint64_t base = least << (Draw() % doublings);
  return base + Draw() % base;
}

static uint64_t DelayAt(enum Point point) {
  if (profile == NULL || !atomic_load_explicit(&busy, memory_order_relaxed)) return 0;
  const struct Chance chance = profile->groups[GroupOf(point)];
  const uint64_t drawn = Draw() % 65536;
  const uint64_t times = slow && GroupOf(point) != kThreads ? 16 : 1;
  if (drawn < chance.long_one * times) return Skewed(1000, 6) + Draw() % 37000 * (Draw() % 8 == 0);
  if (drawn < (chance.long_one + chance.short_one) * times) return Skewed(5, 5);
  return 0;
}

static void Sleep(uint64_t micros) {
  const struct timespec pause = {(time_t)(micros / 1000000), (long)(micros % 1000000 * 1000)};
  // Not a cancellation point, which clock_nanosleep() would be.
  Syscall(SYS_nanosleep, (long)&pause, 0, 0, 0);
}

// Sleeps, if so drawn, but no more than half of the process's life so far: a run must come to its end.
void Reach(enum Point point, int after, enum From from, const char* path, int64_t at, uint32_t sort) {
  const int error = errno;
  inside = true;
  if (stream == 0) BeginThread(1 + atomic_fetch_add(&strangers, 1));
  const uint64_t now = Nanos();
  const uint64_t count = atomic_fetch_add_explicit(&points, 1, memory_order_relaxed) + 1;
  uint64_t delay = DelayAt(point);
  if (delay != 0 && atomic_load_explicit(&slept, memory_order_relaxed) > 200000 + (now - atomic_load(&begun)) / 2000)
    delay = 0;
  struct Entry* e = NULL;
  if (delay != 0 || GroupOf(point) != kMutexes) e = Note(point, after, from, now, path, at, sort);
  if (count == atomic_load_explicit(&kill_at, memory_order_relaxed)) {
    struct Trace* t = atomic_load(&trace);
    if (t != NULL) t->killed = 1;
    Note(kKilled, after, from, now, NULL, point, 0);
    Syscall(SYS_kill, Syscall(SYS_getpid, 0, 0, 0, 0), SIGKILL, 0, 0);
  }
  if (delay != 0) {
    if (e != NULL) e->delay = (uint32_t)delay;
    const uint64_t sum = atomic_fetch_add_explicit(&slept, delay, memory_order_relaxed) + delay;
    struct Trace* t = atomic_load(&trace);
    if (t != NULL) t->delayed = sum;
    Sleep(delay);
  }
  inside = false;
  errno = error;
}

enum From Counts(const void* caller) {
  if (!enabled || inside) return 0;
  const enum From from = FromWhere(caller);
  return from == kHost ? 0 : from;
}

int IsEnabled(void) {
  return enabled;
}

uint64_t NextThread(void) {
  if (stream == 0) BeginThread(1 + atomic_fetch_add(&strangers, 1));
  return Mix(identity, ++children);
}

void EnterThread(uint64_t who) {
  BeginThread(who);
}

// --- the process: at its start and after a fork

static void OpenTrace(void) {
  atomic_store(&trace, NULL);
  if (trace_folder[0] == 0) return;
  const pid_t pid = (pid_t)Syscall(SYS_getpid, 0, 0, 0, 0);
  char path[320];
  // The time keeps apart two processes that had the same number.
  const unsigned long long now = Nanos();
  const int length = snprintf(path, sizeof path, "%s/%d-%llx.ring", trace_folder, (int)pid, now);
  if (length < 0 || length >= (int)sizeof path) return;
  const int fd =
      (int)Syscall(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return;
  const size_t size = sizeof(struct Trace) + trace_entries * sizeof(struct Entry);
  struct Trace* t = MAP_FAILED;
  // On a full disk a store would end the process.
  if (Syscall(SYS_fallocate, fd, 0, 0, (long)size) == 0)
    t = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  Syscall(SYS_close, fd, 0, 0, 0);
  if (t == MAP_FAILED) return;
  t->magic = TRACE_MAGIC;
  t->version = 1;
  t->pid = (uint32_t)pid;
  t->parent = (uint32_t)Syscall(SYS_getppid, 0, 0, 0, 0);
  t->seed = seed;
  t->process = atomic_load(&process);
  t->entries = trace_entries;
  strncpy(t->profile, profile != NULL ? profile->name : "none", sizeof t->profile - 1);
  strncpy(t->command, program_invocation_short_name, sizeof t->command - 1);
  atomic_store(&trace, t);
}

static void BeginProcess(uint64_t number, uint64_t kill_within) {
  atomic_store(&process, number);
  atomic_store(&points, 0);
  atomic_store(&slept, 0);
  atomic_store(&strangers, 0);
  atomic_store(&begun, Nanos());
  BeginThread(0);
  atomic_store(&busy, profile != NULL && Draw() % 100 < profile->busy_processes);
  atomic_store(&kill_at, kill_within == 0 ? 0 : 1 + Draw() % (2 * kill_within));
  struct Trace* t = atomic_load(&trace);
  if (t != NULL) t->process = number;
}

// For a host that forks: this process is number `number` of the run, and kills itself at one of its first
// 2 * `kill_within` points (0: it does not).
PUBLIC void schedule_process(uint64_t number, uint64_t kill_within) {
  if (enabled) BeginProcess(number, kill_within);
}

// Microseconds that this process was delayed so far, all threads together.
PUBLIC uint64_t schedule_slept(void) {
  return atomic_load(&slept);
}

static void AfterFork(void) {
  const int error = errno;
  const uint64_t number = Mix(atomic_load(&process), 1000 + atomic_fetch_add(&forks, 1));
  inside = false;
  struct Trace* parents = atomic_load(&trace);
  OpenTrace();
  if (parents != NULL) munmap(parents, sizeof *parents + parents->entries * sizeof(struct Entry));
  BeginProcess(number, 0);
  errno = error;
}

static uint64_t Number(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == NULL || *text == 0 ? otherwise : strtoull(text, NULL, 0);
}

__attribute__((constructor)) static void Begin(void) {
  if (getenv("SCHEDULE_SEED") == NULL) return;
  const int error = errno;
  seed = Number("SCHEDULE_SEED", 0);
  profile = &kProfiles[Mix(seed, 77) % PROFILES];
  const char* wanted = getenv("SCHEDULE_PROFILE");
  if (wanted != NULL && *wanted != 0) {
    profile = NULL;
    for (size_t i = 0; i < PROFILES; i++)
      if (strcmp(kProfiles[i].name, wanted) == 0) profile = &kProfiles[i];
  }
  const char* folder = getenv("SCHEDULE_TRACE");
  if (folder != NULL && strlen(folder) < sizeof trace_folder) strcpy(trace_folder, folder);
  trace_entries = (uint32_t)Number("SCHEDULE_RING", trace_entries);
  if (trace_entries < 16 || trace_entries > 1 << 20) trace_entries = 1024;
  pthread_atfork(NULL, NULL, AfterFork);
  uint64_t number = Number("SCHEDULE_PROCESS", 0);
  // What a numbered process starts has its environment, hence its number.
  for (const char* c = program_invocation_short_name; *c != 0; c++) number = Mix(number, (uint8_t)*c);
  OpenTrace();
  BeginProcess(number, Number("SCHEDULE_KILL", 0));
  Note(kStarted, 0, kHost, Nanos(), program_invocation_short_name, (int64_t)Number("SCHEDULE_PROCESS", 0), 0);
  enabled = true;
  errno = error;
}

// Names for clang's thread-safety analysis (https://clang.llvm.org/docs/ThreadSafetyAnalysis.html) and an annotated
// mutex.
#ifndef LIBREPLICA_BASE_THREAD_ANNOTATIONS_H_
#define LIBREPLICA_BASE_THREAD_ANNOTATIONS_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define REPLICA_ATTRIBUTE(x) __attribute__((x))
#else
#define REPLICA_ATTRIBUTE(x)
#endif

#define CAPABILITY(x) REPLICA_ATTRIBUTE(capability(x))
#define SCOPED_CAPABILITY REPLICA_ATTRIBUTE(scoped_lockable)
#define GUARDED_BY(x) REPLICA_ATTRIBUTE(guarded_by(x))
#define REQUIRES(...) REPLICA_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) REPLICA_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) REPLICA_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define RELEASE(...) REPLICA_ATTRIBUTE(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS REPLICA_ATTRIBUTE(no_thread_safety_analysis)

namespace replica {

class CAPABILITY("mutex") Mutex {
 public:
  void Lock() ACQUIRE() { mutex_.lock(); }
  void Unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a Mutex for a scope; Wait releases it while waiting, as a condition variable does.
class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() RELEASE() = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Wait(std::condition_variable& changed) { changed.wait(lock_); }
  void WaitUntil(std::condition_variable& changed, std::chrono::steady_clock::time_point deadline) {
    changed.wait_until(lock_, deadline);
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_THREAD_ANNOTATIONS_H_

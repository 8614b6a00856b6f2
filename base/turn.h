// Locks of an open file description (base/byte_lock.h) hold other descriptions back, never the threads that lock
// through the same one: two of them would both have the lock, and the first to unlock it would free it for both. So
// they take turns: whoever has the turn may take, wait for, hold and free such a lock, and nobody else of the process.
#ifndef LIBREPLICA_BASE_TURN_H_
#define LIBREPLICA_BASE_TURN_H_

#include <atomic>
#include <condition_variable>

#include "base/thread_annotations.h"

namespace replica {

class Turn {
 public:
  bool TryTake() EXCLUDES(mutex_);
  // Waits for it. False, without it, when `*given_up` is true; who sets that calls Look.
  bool Take(const std::atomic<bool>& given_up) EXCLUDES(mutex_);
  void Give() EXCLUDES(mutex_);
  void Look() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::condition_variable changed_;
  bool taken_ GUARDED_BY(mutex_) = false;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_TURN_H_

#include "base/turn.h"

namespace replica {

bool Turn::TryTake() {
  MutexLock lock(mutex_);
  if (taken_) return false;
  taken_ = true;
  return true;
}

bool Turn::Take(const std::atomic<bool>& given_up) {
  MutexLock lock(mutex_);
  while (taken_ && !given_up.load()) lock.Wait(changed_);
  if (given_up.load()) return false;
  taken_ = true;
  return true;
}

void Turn::Give() {
  MutexLock lock(mutex_);
  taken_ = false;
  changed_.notify_all();
}

void Turn::Look() {
  // Under the mutex: whoever has looked and is about to wait must hear it.
  MutexLock lock(mutex_);
  changed_.notify_all();
}

}  // namespace replica

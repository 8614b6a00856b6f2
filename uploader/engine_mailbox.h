// Where PUTs report, on the store's thread, and looks at the replica, on one of their own. Outlives the engine for
// those that end after it. Thread-safe.
#ifndef LIBREPLICA_UPLOADER_ENGINE_MAILBOX_H_
#define LIBREPLICA_UPLOADER_ENGINE_MAILBOX_H_

#include <memory>
#include <utility>
#include <vector>

#include "base/control_block.h"
#include "base/thread_annotations.h"
#include "uploader/engine.h"

namespace replica {

struct Engine::Mailbox {
  struct Mail {
    uint64_t attach;  // which attach of the engine it belongs to
    enum Kind { kLog, kSnapshot, kLook } kind;
    Status status;
  };

  ControlBlock* control;
  std::shared_ptr<void> keep_alive;
  Mutex mutex;
  std::vector<Mail> mail GUARDED_BY(mutex);

  // Room for more answers than can be on their way: putting one takes no memory, which may be what is missing.
  static constexpr size_t kRoom = 64;
  Mailbox() { mail.reserve(kRoom); }

  void Put(uint64_t attach, Mail::Kind kind, Status status) EXCLUDES(mutex) {
    {
      MutexLock lock(mutex);
      mail.push_back({attach, kind, std::move(status)});
    }
    WakeLeader(control);
  }

  std::vector<Mail> Take() EXCLUDES(mutex) {
    std::vector<Mail> empty;
    empty.reserve(kRoom);
    MutexLock lock(mutex);
    return std::exchange(mail, std::move(empty));
  }

  bool Empty() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    return mail.empty();
  }
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_ENGINE_MAILBOX_H_

// Replication of one database by this process: a thread that waits for the leadership, then runs the engine.
//
// The leadership is an open-file-description lock on byte 0 of <database>-replica/lock: the kernel frees it when its
// process dies, and the next waiter takes over. A wait for it cannot be called off; a service that is not wanted any
// more while it waits stays asleep, is used again when the database is opened again, and else ends when the lock comes
// to it.
//
// A dedicated process (replica replicate) holds byte 4 as long as it has or wants the leadership. Others leave it to
// that process: their engine yields when it asks, and they wait behind it, to take over the moment it dies.
//
// Who is stopped flushes before it goes, or whoever is next in line does: a leader that is stopping does not yield, and
// one that gets the leadership after it was stopped, while the close still waits, sends what the one before left.
#ifndef LIBREPLICA_EXT_SERVICE_H_
#define LIBREPLICA_EXT_SERVICE_H_

#include <atomic>
#include <condition_variable>
#include <memory>
#include <string>

#include "base/thread_annotations.h"
#include "config/settings.h"
#include "ext/uploader_process.h"
#include "uploader/engine.h"
#include "uploader/store.h"
#include "vfs/database.h"

namespace replica {

class Service : public std::enable_shared_from_this<Service> {
 public:
  // `dedicated`: uploading is what this process is for. `uploader` (may be null, outlives the service): is given the
  // database whenever this process leads. `loud`: what needs a person is said on stderr too.
  Service(std::shared_ptr<Database> database, std::shared_ptr<Store> store, AttachOptions options, bool dedicated,
          UploaderProcess* uploader, bool loud);

  const std::shared_ptr<Database>& database() const { return database_; }
  const std::shared_ptr<Store>& store() const { return store_; }
  const AttachOptions& options() const { return options_; }

  // The application has the database open: compete for the leadership. Returns at once. kUnavailable when there is no
  // thread or memory to be had; then status says so, and the database is unserved (Database::unserved).
  Status Start() EXCLUDES(mutex_);
  // Starts it if it could not be started before, a second or more ago. True when that is so and it runs now.
  bool StartAgain() EXCLUDES(mutex_);
  // The application closed it: flush for at most `flush_micros`, close, give the leadership away. Returns when that is
  // done. The bound is for what waits on the store: what is left after it is local, and is waited for, because only
  // then are the files as plain SQLite leaves them. (A thread that waits for the leadership has no file open.)
  enum class Flush { kNothing, kSent, kLeft };  // there was nothing to send; all of it was sent; not all was
  Flush Stop(int64_t flush_micros) EXCLUDES(mutex_);
  // Its two halves, so that several databases can flush at the same time: BeginStop returns at once.
  void BeginStop(int64_t flush_micros) EXCLUDES(mutex_);
  void AwaitStopped(int64_t micros) EXCLUDES(mutex_);

 private:
  void Run() EXCLUDES(mutex_);
  // Run, and once more after a while when it throws.
  void RunOrRest() EXCLUDES(mutex_);
  // Waits for the leadership on the database's lock. `waited`: another process had it.
  bool AwaitLeadership(const std::string& path, bool* waited) EXCLUDES(mutex_);
  // Waits until no other service of this process works with the database: it may have been attached anew while the
  // thread of the service before is still in line. False when this one is abandoned meanwhile.
  bool TakeTurn(bool* waited) EXCLUDES(mutex_);
  void SetBlocked() EXCLUDES(mutex_);
  bool Wanted() EXCLUDES(mutex_);
  void LetGo();
  // `yielded`: another process asked for the leadership.
  Status Lead(bool* yielded) EXCLUDES(mutex_);
  // True when something is committed that the store may not have, as far as the control block tells.
  bool Unsent() const;
  // True when whoever leads has begun to stop, or is gone.
  bool LeaderEnds() const;

  const std::shared_ptr<Database> database_;
  const std::shared_ptr<Store> store_;
  const AttachOptions options_;
  const bool dedicated_;
  UploaderProcess* const uploader_;
  const bool loud_;
  Mutex mutex_;
  std::condition_variable changed_;
  bool wanted_ GUARDED_BY(mutex_) = false;
  bool running_ GUARDED_BY(mutex_) = false;        // the thread exists
  std::atomic<bool> abandoned_{false};             // stopped, and nobody waits for the thread that is in line; see Turn
  bool blocked_ GUARDED_BY(mutex_) = false;        // it sleeps until another process, or service, gives the lock away
  bool leading_ GUARDED_BY(mutex_) = false;        // it may have a connection to the database open
  uint64_t term_ GUARDED_BY(mutex_) = 0;           // times that it has led
  uint64_t stop_term_ GUARDED_BY(mutex_) = 0;      // term_ when it was last stopped
  int64_t flush_ GUARDED_BY(mutex_) = 0;           // µs to flush once it is not wanted
  int64_t start_again_at_ GUARDED_BY(mutex_) = 0;  // steady µs, when it could not be started
  Engine* engine_ GUARDED_BY(mutex_) = nullptr;
  bool has_turn_ = false;  // the thread's: see Turn
  uint32_t handover_ = 0;  // the thread's: ControlBlock::handover when the leadership came
};

}  // namespace replica

#endif  // LIBREPLICA_EXT_SERVICE_H_

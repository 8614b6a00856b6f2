#include "ext/service.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include "base/as_owner.h"
#include "base/byte_lock.h"
#include "base/futex.h"
#include "base/worker.h"
#include "ext/hub.h"
#include "vfs/wal_source.h"

namespace replica {
namespace {

constexpr int64_t kOpenRetry = 500000;      // µs between tries to open the database
constexpr int64_t kStartAgain = 1000000;    // µs between tries to start the thread
constexpr int64_t kGuardInterval = 100000;  // µs that a checkpoint may have to wait for the guard's read mark
constexpr int64_t kGrace = 2000000;         // µs beyond the flush for closing …
constexpr int64_t kSettle = 3000;           // µs
constexpr int64_t kShortGrace = 200000;     // … where there is no time for a flush
constexpr int64_t kLocalWork = 30000000;    // µs for the last capture and the close, on a disk that barely answers
constexpr int64_t kHandoverLook = 10000;    // µs between looks whether a dedicated process has the leadership yet
constexpr int kHandoverLooks = 200;
constexpr int64_t kNextInLine = 1000000;  // µs that the next in line may take to lead when something is unsent

const std::string kNoMemory = "out of memory";  // short enough to need none

}  // namespace

Service::Service(std::shared_ptr<Database> database, std::shared_ptr<Store> store, AttachOptions options,
                 bool dedicated, UploaderProcess* uploader, bool loud)
    : database_(std::move(database)),
      store_(std::move(store)),
      options_(std::move(options)),
      dedicated_(dedicated),
      uploader_(uploader),
      loud_(loud) {}

Status Service::Start() {
  MutexLock lock(mutex_);
  wanted_ = true;
  abandoned_.store(false);
  changed_.notify_all();
  if (running_) return Ok();
  Status status;
  try {
    auto thread = StartThread("replica-lead", [self = shared_from_this()] { self->RunOrRest(); });
    running_ = thread.ok();
    if (running_) thread->detach();
    status = thread.status();
  } catch (const std::exception&) {
    status = Status(Code::kUnavailable, kNoMemory);
  }
  database_->SetUnserved(!running_);
  if (running_) return Ok();
  start_again_at_ = SystemClock().SteadyMicros() + kStartAgain;
  ControlBlock* c = database_->control();
  if (c->leader_pid.load() == 0) {
    StoreText(&c->last_error, status.message());
    if (c->error_since.load() == 0) c->error_since.store(SystemClock().WallMicros());
    c->state.store(static_cast<uint32_t>(ReplicaState::kError));
    NotifyWaiters(c);
  }
  return status.In(database_->path() + " is not uploaded by this process");
}

bool Service::StartAgain() {
  {
    MutexLock lock(mutex_);
    if (!wanted_ || running_ || SystemClock().SteadyMicros() < start_again_at_) return false;
  }
  return Start().ok();
}

Service::Flush Service::Stop(int64_t flush_micros) {
  const bool any = !database_->Stale() && Unsent();
  BeginStop(flush_micros);
  AwaitStopped(flush_micros);
  return !any || database_->Stale() ? Flush::kNothing : Unsent() ? Flush::kLeft : Flush::kSent;
}

void Service::BeginStop(int64_t flush_micros) {
  // With its folder gone there is nothing left to flush.
  if (database_->Stale()) flush_micros = 0;
  {
    MutexLock lock(mutex_);
    wanted_ = false;
    flush_ = flush_micros;
    stop_term_ = term_;
    database_->SetUnserved(false);
    if (engine_ != nullptr) engine_->Stop(flush_micros);
    changed_.notify_all();
  }
  WakeLeader(database_->control());
}

void Service::AwaitStopped(int64_t micros) {
  if (database_->Stale()) micros = 0;
  micros += micros < kGrace ? kShortGrace : kGrace;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(micros);
  bool lost = false;
  if (uploader_ != nullptr) lost = !uploader_->Remove(database_->path(), micros);
  // One that waits behind another process's leader has nothing to flush: that one sends what is committed by now, also
  // when it begins to stop later. One that has not come to the lock yet has: a process may open, commit and close
  // before its thread runs. So has one whose leader ends just now without having sent everything.
  const auto in_line_until =
      std::min(deadline, std::chrono::steady_clock::now() + std::chrono::microseconds(kNextInLine));
  // A leader that was killed just now: the thread has the lock in a moment.
  const auto settled = std::chrono::steady_clock::now() + std::chrono::microseconds(kSettle);
  MutexLock lock(mutex_);
  while (running_ && term_ == stop_term_) {
    const auto until = blocked_ ? in_line_until : deadline;
    if (std::chrono::steady_clock::now() >= until) break;
    if (blocked_ && (!Unsent() || (!lost && !LeaderEnds() && std::chrono::steady_clock::now() >= settled))) break;
    lock.WaitUntil(changed_, std::min(until, std::chrono::steady_clock::now() +
                                                 std::chrono::microseconds(blocked_ ? kSettle : kHandoverLook)));
  }
  const auto local = std::chrono::steady_clock::now() + std::chrono::microseconds(kLocalWork);
  while (leading_ && !wanted_ && std::chrono::steady_clock::now() < local) lock.WaitUntil(changed_, local);
  // From here on the database is closed: a thread that gets the leadership later leaves the files alone.
  abandoned_.store(running_ && !wanted_ && !leading_);
  database_->leadership().Look();
}

bool Service::Unsent() const {
  const ControlBlock* c = database_->control();
  return c->captured_txid.load() == 0 || c->acknowledged_txid.load() < c->captured_txid.load() ||
         c->committed.load() != c->captured_commit.load() || c->spool_bytes.load() != 0 || c->journal_total.load() != 0;
}

bool Service::LeaderEnds() const {
  const ControlBlock* c = database_->control();
  return c->leader_pid.load() == 0 || c->leader_stopping.load() != 0;
}

void Service::RunOrRest() {
  for (;;) {
    try {
      Run();
      return;
    } catch (const std::exception&) {
      // No memory, most likely, not even to say so in detail: the application must not die of it.
      MutexLock guard(mutex_);
      if (has_turn_) LetGo();
      engine_ = nullptr;
      leading_ = blocked_ = false;
      term_++;
      changed_.notify_all();
      ControlBlock* c = database_->control();
      StoreText(&c->last_error, kNoMemory);
      if (c->error_since.load() == 0) c->error_since.store(SystemClock().WallMicros());
      c->state.store(static_cast<uint32_t>(ReplicaState::kError));
      NotifyWaiters(c);
      if (wanted_ && !database_->Stale())
        guard.WaitUntil(changed_, std::chrono::steady_clock::now() + std::chrono::microseconds(kOpenRetry));
      if (wanted_ && !database_->Stale()) continue;
      running_ = false;
      return;
    }
  }
}

void Service::Run() {
  const AsOwner owner(database_->path());
  for (;;) {
    const std::string path = LockPath(database_->folder());
    bool waited = false;
    const bool turn = TakeTurn(&waited);
    const bool locked = turn && AwaitLeadership(path, &waited);
    {
      MutexLock guard(mutex_);
      blocked_ = false;
      changed_.notify_all();
      // Not wanted any more, but the leader before it ended without having sent everything: then it does that.
      if (!wanted_ && (!locked || abandoned_.load() || (waited && !Unsent()))) {
        if (turn) LetGo();
        running_ = false;
        return;
      }
      if (!turn) continue;  // it was abandoned, and is wanted again
      leading_ = true;
    }
    bool yielded = false;
    const Status status = locked ? Lead(&yielded) : Status(Code::kIo, database_->folder() + "/lock cannot be locked");
    {
      MutexLock guard(mutex_);
      LetGo();
      engine_ = nullptr;
      leading_ = false;
      changed_.notify_all();
      // It was asked for the leadership, gave it away, and was stopped then: the one that asked may have been, too.
      if (!wanted_ && yielded && Unsent()) continue;
      term_++;
      if (!wanted_) {
        running_ = false;
        return;
      }
      // Another service, of the folder or the control block that takes this one's place, goes on.
      if (database_->Stale()) {
        running_ = false;
        break;
      }
      if (!status.ok()) {
        ControlBlock* c = database_->control();
        StoreText(&c->last_error, status.message());
        if (c->error_since.load() == 0) c->error_since.store(SystemClock().WallMicros());
        c->state.store(static_cast<uint32_t>(ReplicaState::kError));
        NotifyWaiters(c);
        guard.WaitUntil(changed_, std::chrono::steady_clock::now() + std::chrono::microseconds(kOpenRetry));
      }
    }
  }
  Hub::Get().Replace(shared_from_this());
}

// Unlocked, not closed: a child forked meanwhile may have inherited the descriptor, and the lock with it.
void Service::LetGo() {
  Unlock(database_->lock_fd(), LockByte::kLeader);
  Unlock(database_->lock_fd(), LockByte::kDedicated);
  has_turn_ = false;
  database_->leadership().Give();
}

bool Service::TakeTurn(bool* waited) {
  has_turn_ = database_->leadership().TryTake();
  if (has_turn_) return true;
  *waited = true;
  SetBlocked();
  has_turn_ = database_->leadership().Take(abandoned_);
  return has_turn_;
}

bool Service::Wanted() {
  MutexLock guard(mutex_);
  return wanted_;
}

void Service::SetBlocked() {
  MutexLock guard(mutex_);
  blocked_ = true;
  changed_.notify_all();
}

bool Service::AwaitLeadership(const std::string& path, bool* waited) {
  const int fd = database_->lock_fd();
  ControlBlock* c = database_->control();
  auto wait = [&](LockByte byte) {
    *waited = true;
    SetBlocked();
    return Lock(fd, byte, path).ok();
  };
  if (dedicated_) {
    if (!TryLock(fd, LockByte::kDedicated) && !wait(LockByte::kDedicated)) return false;
    // Asked again and again: whoever leads now may have begun to after the last time.
    for (int i = 0; !TryLock(fd, LockByte::kLeader); i++) {
      *waited = true;
      SetBlocked();
      c->handover.fetch_add(1, std::memory_order_seq_cst);
      WakeLeader(c);
      MutexLock guard(mutex_);
      if (!wanted_) return TryLock(fd, LockByte::kLeader);
      guard.WaitUntil(changed_, std::chrono::steady_clock::now() +
                                    std::chrono::microseconds(i < kHandoverLooks ? kHandoverLook : kOpenRetry));
    }
    return true;
  }
  // A dedicated process is about to take the leadership: get in line behind it. One that does not take it is stuck, or
  // stopped: then this one leads, until it is asked again.
  for (int i = 0;
       i < kHandoverLooks && Wanted() && IsLocked(fd, LockByte::kDedicated) && !IsLocked(fd, LockByte::kLeader); i++) {
    *waited = true;
    if (i == 0) SetBlocked();
    std::this_thread::sleep_for(std::chrono::microseconds(kHandoverLook));
  }
  for (int i = 0;; i++) {
    if (!TryLock(fd, LockByte::kLeader) && !wait(LockByte::kLeader)) return false;
    handover_ = c->handover.load(std::memory_order_seq_cst);
    if (i == kHandoverLooks || !Wanted() || !IsLocked(fd, LockByte::kDedicated)) return true;
    Unlock(fd, LockByte::kLeader);
    *waited = true;
    SetBlocked();
    std::this_thread::sleep_for(std::chrono::microseconds(2 * kHandoverLook));
  }
}

Status Service::Lead(bool* yielded) {
  REPLICA_ASSIGN(std::unique_ptr<WalSource> source, WalSource::Open(database_, options_.guard));
  Engine::Place place;
  place.database = database_->path();
  place.folder = database_->folder();
  if (loud_)
    place.tell = [](const std::string& message) { (void)std::fprintf(stderr, "libreplica: %s\n", message.c_str()); };
  bool wanted = false;
  {
    MutexLock lock(mutex_);
    wanted = wanted_;
    place.handover = handover_;
    place.yields = !dedicated_;
  }
  if (uploader_ != nullptr && wanted) uploader_->Add(database_->path(), store_->url(), options_);
  EngineOptions engine_options = options_.engine;
  if (options_.guard) engine_options.watch_interval = std::min(engine_options.watch_interval, kGuardInterval);
  Engine engine(source.get(), store_, database_->control(), database_, place, engine_options, SystemClock());
  {
    MutexLock lock(mutex_);
    engine_ = &engine;
    if (!wanted_) engine.Stop(flush_);
  }
  *yielded = engine.Run();
  {
    MutexLock lock(mutex_);
    engine_ = nullptr;
  }
  source.reset();
  const FileStamp stamp = StampOf(database_->path());
  auto chain = database_->Chain();
  auto wal = FileSize(database_->wal_path());
  if (chain.ok() && chain->left == HashOf(stamp) && chain->left_end == chain->end && (!wal.ok() || *wal == 0))
    engine.StampCleanClose(EndOf(*chain), stamp);
  return Ok();
}

}  // namespace replica

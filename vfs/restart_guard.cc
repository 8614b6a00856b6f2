#include "vfs/restart_guard.h"

#include <algorithm>
#include <ctime>
#include <utility>

namespace replica {
namespace {

constexpr int kTries = 1000;

void Pause() {
  struct timespec pause = {0, 50000};
  nanosleep(&pause, nullptr);
}

}  // namespace

Result<std::unique_ptr<RestartGuard>> RestartGuard::Open(const std::shared_ptr<Database>& database) {
  std::unique_ptr<RestartGuard> guard(new RestartGuard);
  for (Hold& hold : guard->holds_) {
    REPLICA_ASSIGN(hold.connection, OwnConnection::Open(database));
    // A writer in our way is asked again later, not waited for.
    REPLICA_TRY(hold.connection->Exec("PRAGMA busy_timeout=0"));
  }
  REPLICA_ASSIGN(guard->checkpointer_, OwnConnection::Open(database));
  return guard;
}

Status RestartGuard::Renew() {
  Hold& idle = holds_[1 - newest_];
  if (idle.held) return Ok();
  REPLICA_TRY(idle.connection->BeginRead(&idle.state));
  idle.held = true;
  newest_ = 1 - newest_;
  return Ok();
}

void RestartGuard::End(Hold* hold) {
  if (!hold->held) return;
  hold->connection->EndRead();
  hold->held = false;
}

bool RestartGuard::InTheWay() const {
  const Hold& newest = holds_[newest_];
  WalIndexHeader header;
  if (!newest.held || holds_[1 - newest_].held || !newest.connection->Index(&header)) return true;
  if (header.wal_salts() != newest.state.position.salts || header.max_frame != newest.state.position.frame) return true;
  return newest.state.mark > 0 && newest.connection->Backfilled() >= header.max_frame;
}

void RestartGuard::Passed() {
  End(&holds_[1 - newest_]);
}

void RestartGuard::Drop() {
  for (Hold& hold : holds_) End(&hold);
}

void RestartGuard::StepAside() {
  const Hold& newest = holds_[newest_];
  if (!newest.held || newest.state.mark == 0 || holds_[1 - newest_].held) return;
  // With all of it in the database file, the next read transaction takes mark 0 and is in nobody's way.
  if (checkpointer_->Checkpoint() != SQLITE_BUSY) return;
  WalIndexHeader header;
  if (!checkpointer_->Index(&header) || header.wal_salts() != newest.state.position.salts ||
      header.max_frame != newest.state.position.frame)
    return;
  checkpointer_->SeeEnd(header);
  End(&holds_[newest_]);
  WalIndexHeader now = header;
  for (int i = 0; i < kTries && now.max_frame == header.max_frame && now.wal_salts() == header.wal_salts(); i++) {
    Pause();
    if (!checkpointer_->Index(&now)) break;
  }
  (void)Renew();  // without it the next look renews
}

Status RestartGuard::Shorten(const std::function<Status()>& capture) {
  WalIndexHeader header;
  if (!checkpointer_->Index(&header)) return Ok();
  if (header.max_frame < shortened_at_) shortened_at_ = 0;
  if (header.max_frame < shortened_at_ + kManyFrames) return Ok();
  Hold& newest = holds_[newest_];
  Hold& idle = holds_[1 - newest_];
  if (!newest.held || idle.held) return Ok();
  // Most of the copying and its fsync before the lock is taken.
  (void)checkpointer_->Checkpoint();
  // Busy writers leave short gaps, which SQLite's own busy handler would sleep through.
  bool locked = false;
  for (int i = 0; i < kTries && !(locked = idle.connection->TryExec("BEGIN IMMEDIATE") == SQLITE_OK); i++) Pause();
  if (!locked) return Ok();
  // From here on nothing is committed and nobody restarts the WAL: restarting takes the write lock.
  Status status = capture();
  if (status.ok()) {
    End(&newest);
    // A writer that has just committed may be at a checkpoint of its own.
    for (int i = 0; i < kTries && checkpointer_->Checkpoint() == SQLITE_BUSY; i++) Pause();
    // Finds all of it in the database file and takes mark 0, unless a reader stood in the way of the checkpoint.
    status = newest.connection->BeginRead(&newest.state);
    newest.held = status.ok();
    shortened_at_ = header.max_frame;
  }
  idle.connection->EndRead();
  return status;
}

}  // namespace replica

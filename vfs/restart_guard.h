// The `guard` option: keeps processes without libreplica from restarting the WAL past what is captured, by holding a
// read mark, for people who must keep such writers.
//
// Two read transactions take turns: the newer one begins before the frames up to it are captured, and the older one
// ends after that, so there is always one that covers what is not captured yet. While one is held the WAL it is of
// cannot be restarted (marks 1…4), or only when all of it was in the database file already, and only once (mark 0). So
// SQLite's count where that WAL ended is known before the next one begins (Database::SeeEnd), and the next one is known
// by the commits that it holds (vfs/wal_chain.h).
//
// The price: a WAL that is written without a pause is never free of readers when SQLite would restart it. Once it is
// larger than a few checkpoints' worth, Shorten takes the write lock for as long as two small copies and an fsync take.
// Leader's thread only.
#ifndef LIBREPLICA_VFS_RESTART_GUARD_H_
#define LIBREPLICA_VFS_RESTART_GUARD_H_

#include <functional>
#include <memory>

#include "vfs/own_connection.h"

namespace replica {

class RestartGuard {
 public:
  static Result<std::unique_ptr<RestartGuard>> Open(const std::shared_ptr<Database>& database);

  // Begins a read transaction at the newest commit, unless both are held. Before frames are captured.
  Status Renew();
  // True when a checkpoint may be waiting for a read transaction: the older one is still held, or the newer one is not
  // at the last commit, or holds a mark although the whole WAL is in the database file.
  bool InTheWay() const;
  // Everything up to the newest read transaction is captured: ends the older one.
  void Passed();
  // Holds nothing any more: frames may be lost from now on.
  void Drop();

  // The WAL has not changed since the last look, all of it is captured, and the newest read transaction is at its end:
  // a checkpoint may wait for the very mark it holds, with the write lock in its hand (walCheckpoint reads a mark once
  // and then waits for its lock, whatever the mark is by then). Lets such a one pass.
  void StepAside();

  // When the WAL holds many frames: `capture` (all that is committed), then a checkpoint of all of it with the write
  // lock held, so that the next writer restarts the WAL. Does nothing while another connection writes.
  Status Shorten(const std::function<Status()>& capture);

  static constexpr uint32_t kManyFrames = 4000;  // four of SQLite's automatic checkpoints

 private:
  struct Hold {
    std::unique_ptr<OwnConnection> connection;
    ReadState state;
    bool held = false;
  };
  RestartGuard() = default;
  static void End(Hold* hold);

  Hold holds_[2];
  int newest_ = 0;
  std::unique_ptr<OwnConnection> checkpointer_;  // works while holds_ keep their marks
  uint32_t shortened_at_ = 0;                    // frames at the last try that did not help
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_RESTART_GUARD_H_

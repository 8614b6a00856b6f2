// The database as the engine sees it. vfs/wal_source.h implements it; one thread, the leader's, uses it.
#ifndef LIBREPLICA_UPLOADER_SOURCE_H_
#define LIBREPLICA_UPLOADER_SOURCE_H_

#include <cstdint>
#include <string>

#include "base/status.h"
#include "uploader/batch.h"
#include "uploader/segment.h"
#include "uploader/state.h"

namespace replica {

class Source {
 public:
  virtual ~Source() = default;

  // Where capture goes on.
  virtual void SetPosition(const WalPosition& position) = 0;
  // The same, or as another proof has named it since.
  virtual const WalPosition& position() const = 0;
  // True when every commit after the position can still be read, in order: the position lies in the live WAL (its frame
  // carries the position's checksum), or the WALs and the journal go on from it. `stamp`: of the database file when it
  // held just what is captured; all zero: not known.
  virtual Result<bool> Reachable(const FileStamp& stamp) = 0;
  // The same, but by the live WAL alone: the frame at the position is there, with its cumulative checksum. The only
  // proof that outlives a start of the machine.
  virtual Result<bool> InLiveWal() = 0;

  // The file that is captured, and whether its path names another one, or none, by now (one stat).
  virtual FileId file() const = 0;
  virtual bool Replaced() const = 0;
  // The replica folder was removed, or another is in its place: nothing may be written there by this leader.
  virtual bool FolderGone() const = 0;

  // Looks at what is committed by now, so that commits which no tap has seen get the time of this look (a look at least
  // once a second makes it right to a second), and publishes how many there are.
  virtual void Observe() = 0;
  // Frames committed after the position and not yet collected, in bytes (an estimate from shared memory, no I/O).
  virtual uint64_t Backlog() = 0;
  // All commits after the position, as far as `until` (of a read view) when that is not null; moves the position behind
  // them. At most `memory_budget` bytes of frames stay in memory, more go through the journal. kConflict: frames were
  // lost (a foreign process restarted the WAL): resync.
  virtual Result<Batch> Collect(uint64_t memory_budget, const WalPosition* until) = 0;
  // Moves frames to the journal when the WAL holds many that no segment has, so that a restart need not wait; a guard
  // steps out of the way of checkpoints. Cheap when there is nothing to do.
  virtual Status Relieve() = 0;
  // The batch is in a segment in the spool: its frames may go.
  virtual void Release(const Batch& batch) = 0;
  // The first step of a new leader, and of one whose frames were lost: with `drop` the journal is of no use any more.
  // Frames after the position that the WAL holds count as not yet captured.
  virtual Status ResetJournal(bool drop) = 0;

  // Nothing is captured for a while: a guard that would keep the WAL from being restarted ends. The next Collect renews
  // it.
  virtual void LetGo() = 0;

  // The page as it was at the position before the last Collect, if it can be found where `hash` is its page hash: false
  // when it cannot.
  virtual bool ReadBase(uint32_t page, uint64_t hash, uint8_t* out) = 0;
  // The page as it is at the position, if it can be found where `hash` is its page hash.
  virtual bool ReadNewest(uint32_t page, uint64_t hash, uint8_t* out) = 0;
  // The page as SQLite would read it now.
  virtual Status ReadCurrent(uint32_t page, uint8_t* out) = 0;

  // --- a read view: one consistent state of the whole database, held against checkpoints. Writers are not blocked; the
  // WAL cannot be restarted meanwhile.
  virtual Status BeginView() = 0;
  virtual void EndView() = 0;
  virtual const WalPosition& view_position() const = 0;
  // True when the position is the view's state: all of its commits are collected and none that came after.
  virtual bool AtView() const = 0;
  // SetPosition to the view's state.
  virtual void SetPositionToView() = 0;
  virtual uint32_t view_pages() const = 0;
  virtual uint32_t page_size() const = 0;
  virtual Status ReadView(uint32_t page, uint8_t* out) = 0;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SOURCE_H_

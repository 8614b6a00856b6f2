// One database that is replicated, as this process sees it: its replica folder, control block and journal.
//
// The journal holds raw WAL frames that would otherwise die at a WAL restart before a segment holds them. The leader
// appends to it when it cannot keep up by encoding; the restart gate, in the application's thread, appends what is
// missing when a restart comes. docs/architecture.md tells the whole story.
#ifndef LIBREPLICA_VFS_DATABASE_H_
#define LIBREPLICA_VFS_DATABASE_H_

#include <atomic>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "base/control_block.h"
#include "base/fs.h"
#include "base/status.h"
#include "base/thread_annotations.h"
#include "base/turn.h"
#include "uploader/state.h"
#include "vfs/wal_format.h"

namespace replica {

// Before each run of frames in a journal file; 80 bytes, little-endian.
struct JournalChunk {
  WalSalts salts{};
  uint32_t page_size = 0;
  uint32_t first = 0;          // frame number in that WAL
  uint32_t count = 0;          // frames that follow
  uint32_t changes = 0;        // iChange at the last of them, when `at_end`
  bool at_end = false;         // the chunk ends where the WAL ended then
  uint64_t gate_position = 0;  // the gate before this WAL, or the last one passed before the chunk was written
  uint32_t gate_changes = 0;
  uint32_t begin_frame = 0;  // the first commit that a tap saw in this WAL (WalBegin); 0: not known
  uint32_t begin_changes = 0;
  uint64_t life = 0;    // WalBegin::life
  uint64_t closed = 0;  // WalBegin::closed

  uint64_t bytes() const { return uint64_t{count} * (page_size + kFrameHeaderSize); }
};
constexpr size_t kJournalChunkSize = 80;
std::string EncodeChunk(const JournalChunk& chunk);
bool DecodeChunk(std::string_view bytes, JournalChunk* chunk);

class Database {
 public:
  // `path` is absolute. Creates the replica folder and the control block.
  static Result<std::shared_ptr<Database>> Create(const std::string& path);
  // For a database that another process made replicated: kNotFound when it has no replica folder.
  static Result<std::shared_ptr<Database>> Find(const std::string& path);
  static std::string FolderOf(const std::string& path) { return path + "-replica"; }

  const std::string& path() const { return path_; }
  const std::string& folder() const { return folder_; }
  std::string wal_path() const { return path_ + "-wal"; }
  std::string spool_folder() const { return folder_ + "/spool"; }
  // Of <folder>/lock: the description that this process's byte locks belong to.
  int lock_fd() const { return lock_fd_.get(); }
  // Who of this process may compete for the leadership, and have it, through that descriptor.
  Turn& leadership() { return leadership_; }
  ControlBlock* control() const { return mapping_->block(); }

  // The tap. Called with SQLite's WAL write lock held, just before it is released; `region0` is the wal-index. No lock,
  // no allocation, no system call but the wake-up of a leader that sleeps.
  void Tap(const volatile void* region0) noexcept {
    const auto* words = static_cast<const volatile uint32_t*>(region0);
    const uint32_t max_frame = words[4];
    const uint64_t position = uint64_t{__builtin_bswap32(words[8])} << 32 | max_frame;
    ControlBlock* c = control_;
    // Unmoved: rollback or empty transaction. Frame 0: the WAL was restarted and nothing is committed in it yet.
    const uint64_t before = c->committed.load(std::memory_order_relaxed);
    if (position == before || max_frame == 0) return;
    if (position >> 32 != before >> 32) BeginWal(position, words[2]);
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    const uint32_t slot = c->time_next.load(std::memory_order_relaxed);
    CommitTime& time = c->times[slot % kCommitTimes];
    time.time.store(int64_t{now.tv_sec} * 1000000 + now.tv_nsec / 1000, std::memory_order_relaxed);
    time.position.store(position, std::memory_order_release);
    c->time_next.store(slot + 1, std::memory_order_relaxed);
    if (slot % (kCommitTimes / 2) == 0) KeepOldest(slot, words[2]);
    c->committed_changes.store(words[2], std::memory_order_relaxed);
    // Dekker with the leader: it stores wake_at, then looks at `committed`; we store `committed`, then look at wake_at.
    // Sequential consistency means that one of the two sees the other, so no commit is slept through.
    c->committed.store(position, std::memory_order_seq_cst);
    const uint64_t wake_at = c->wake_at.load(std::memory_order_seq_cst);
    if (wake_at == kWakeNever) return;
    if (wake_at == kWakeAtAnyCommit || wake_at >> 32 != position >> 32 || position >= wake_at) Wake();
  }

  // False for a file that is not (or no more) the one that the leader captures: its path names another one.
  bool Captures(const FileId& id) const noexcept {
    const uint64_t inode = control_->file_inode.load(std::memory_order_relaxed);
    return inode == 0 || (inode == id.inode && control_->file_device.load(std::memory_order_relaxed) == id.device);
  }

  // Identifies one life of the wal-index: from its creation, or a time when nobody used it, to the next. SQLite's count
  // of commits (iChange) runs on within it. Changes only while no connection of this process is a user (AddUser).
  uint64_t Life() const;

  // Salts of the WAL file as it lies there; zero when there is none or it is empty.
  WalSalts WalOnDisk() const;

  // The last gate passed in the wal-index life `life`: where the WAL ended, and SQLite's count of commits there. 0 when
  // there was none, or when one is passing just now. Lock-free against PassGate.
  uint64_t LastGate(uint64_t life, uint32_t* changes) const;

  // Which gate a WAL follows, and SQLite's count of commits at the first commit that a tap saw in it: that count
  // compares with the gate's also after a crash.
  struct WalBegin {
    uint64_t life = 0;          // of the wal-index then; 0: nothing is known
    uint64_t gate = 0;          // packed position where the WAL before ended; 0: none passed a gate in that life
    uint64_t closed = 0;        // without a gate: where the WAL ended before the close that came before; 0: not known
    uint32_t gate_changes = 0;  // SQLite's count of commits at the gate
    uint32_t frame = 0;         // of the commit; 0: none seen, compare at the WAL's end
    uint32_t changes = 0;       // SQLite's count of commits at it
  };
  // What is known of the WAL with these salts, which is the live one; without a commit seen in it, the last gate's.
  WalBegin BeginOf(const WalSalts& salts, uint64_t life) const;

  // The restart gate. Called while no other connection can write or restart the WAL (the caller holds the write lock,
  // or the whole file), before frames may die. Afterwards every committed frame is in the journal, the spool or the
  // replica. A bounded local copy at most; never waits for the network. When it cannot (disk full, bound reached), it
  // raises `overflow` and lets the application go on: the leader heals by difference.
  void PassGate(const volatile void* region0) noexcept EXCLUDES(gate_);

  // The whole file is locked for the last close and the gate is passed: how the database will be left.
  ClosedAt Closing(const volatile void* region0) const noexcept;
  // The last connection has checkpointed the WAL, deletes it next, and has the whole file locked: notes how it leaves
  // the database, so that whoever opens it next can tell which WAL comes next.
  void NoteClosed(const ClosedAt& at) noexcept;
  // How a file that has this stamp now was closed; nothing known when it was written since.
  ClosedAt Closed(const FileStamp& now) const;

  // --- for the leader

  // Copies frames (durable, end] of the live WAL to the journal, up to `most` frames. A restart that comes in between
  // is no error: its gate has seen to the frames.
  Status JournalFrames(const volatile void* region0, uint32_t most) EXCLUDES(gate_);
  // Closes the current journal file, so that appends go to a new one, and returns the closed ones, oldest first.
  Result<std::vector<std::string>> RotateJournal() EXCLUDES(gate_);
  // After a rotation, once their frames are in a segment.
  Status RemoveJournals(const std::vector<std::string>& paths) EXCLUDES(gate_);
  // Sets `durable` to the end of what a segment now holds, unless the journal already reaches further.
  void AdvanceDurable(uint64_t position) EXCLUDES(gate_);
  // A new leader's first step: appends go behind what earlier leaders left, `durable` starts anew.
  Status ResetJournal(uint64_t durable, bool drop) EXCLUDES(gate_);

  // A connection of this process begins or ends to use the wal-index. While any process's does, the index is not
  // rebuilt, so SQLite's count of commits runs on; with the first user to come after there was none another life
  // begins.
  void AddUser() EXCLUDES(gate_);
  void RemoveUser() EXCLUDES(gate_);
  // When no connection of any process uses it: gates need keep no frames any more (`active` is cleared).
  void ForgetIfUnused() EXCLUDES(gate_);

  // Microseconds that a COMMIT through this process waits for the store; 0: it does not (sync=interval).
  void SetCommitWait(int64_t micros) { commit_wait_.store(micros, std::memory_order_relaxed); }
  int64_t commit_wait() const { return commit_wait_.load(std::memory_order_relaxed); }

  // The VFS that the application opens the database with; ours must be the same. Empty: the default.
  void SetVfs(const std::string& name);
  std::string vfs() const;

  // How the application's last close wants the WAL to be left; our own connection, which closes after it, obeys.
  void SetCloseMode(bool persist_wal, bool no_checkpoint) {
    persist_wal_.store(persist_wal, std::memory_order_relaxed);
    no_checkpoint_.store(no_checkpoint, std::memory_order_relaxed);
  }
  bool persist_wal() const { return persist_wal_.load(std::memory_order_relaxed); }
  bool no_checkpoint() const { return no_checkpoint_.load(std::memory_order_relaxed); }

  // True when the replica folder was removed or replaced under us: this object speaks to nobody any more.
  bool Stale() const;

  // Closes the descriptors that a fork has made the child share with its parent. Child only, right after fork().
  void ForgetAfterFork() NO_THREAD_SAFETY_ANALYSIS;

 private:
  Database(std::string path, std::unique_ptr<ControlMapping> mapping, UniqueFd lock_fd);
  static Result<std::shared_ptr<Database>> Open(const std::string& path, std::unique_ptr<ControlMapping> mapping);

  void Wake() noexcept;
  // Keeps the time of the oldest commit that is not captured before the ring overwrites it.
  void KeepOldest(uint32_t slot, uint32_t changes) noexcept;
  // The tap's first commit in a WAL.
  void BeginWal(uint64_t position, uint32_t changes) noexcept;
  Status LockGateFile() REQUIRES(gate_);
  void UnlockGateFile() REQUIRES(gate_);
  // Copies frames first..last of the WAL that `header` describes into the journal and moves `durable`; false when the
  // WAL was restarted meanwhile, which leaves the journal as it was.
  Result<bool> Append(const volatile void* region0, const WalIndexHeader& header, uint32_t first, uint32_t last)
      REQUIRES(gate_);
  // PassGate; throws when there is no memory.
  void KeepFrames(const volatile void* region0) EXCLUDES(gate_);
  std::string JournalPath(uint64_t index) const;

  const std::string path_;
  const std::string shm_path_;
  const std::string folder_;
  const std::unique_ptr<ControlMapping> mapping_;
  ControlBlock* const control_;
  const uint64_t control_inode_;
  std::atomic<int64_t> commit_wait_{0};
  std::atomic<bool> persist_wal_{false};
  std::atomic<bool> no_checkpoint_{false};
  mutable Mutex vfs_mutex_;
  std::string vfs_ GUARDED_BY(vfs_mutex_);
  // The gate lock: this mutex among the process's threads, an open-file-description lock on byte 1 of `lock` among
  // processes (the kernel drops it when its holder dies). Held for memory and local file writes only.
  Mutex gate_;
  // Of `lock`: all byte locks of this process for this database are this one description's. Bytes 1 and 3 are taken
  // and freed under gate_, the leadership's by whoever has the turn.
  UniqueFd lock_fd_;
  Turn leadership_;
  int users_ GUARDED_BY(gate_) = 0;  // while not 0: a shared lock on byte 3 of `lock`
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_DATABASE_H_

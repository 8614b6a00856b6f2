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
#include <new>
#include <string>
#include <vector>

#include "base/byte_lock.h"
#include "base/control_block.h"
#include "base/fs.h"
#include "base/status.h"
#include "base/thread_annotations.h"
#include "base/turn.h"
#include "uploader/state.h"
#include "vfs/wal_chain.h"
#include "vfs/wal_format.h"

namespace replica {

// Before each run of frames in a journal file; 80 bytes, little-endian.
struct JournalChunk {
  WalSalts salts{};
  uint32_t page_size = 0;
  uint32_t first = 0;         // frame number in that WAL
  uint32_t count = 0;         // frames that follow
  uint32_t changes = 0;       // iChange at the last of them, when `at_end`
  bool at_end = false;        // the chunk ends where the WAL ended then
  uint32_t ordinal = 0;       // of that WAL in its chain (vfs/wal_chain.h)
  uint64_t chain = 0;         // 0: not known; the chunk can only go on in a WAL that is known
  uint32_t previous_end = 0;  // the last frame of the WAL before it

  uint64_t bytes() const { return uint64_t{count} * (page_size + kFrameHeaderSize); }
};
constexpr size_t kJournalChunkSize = 80;
std::string EncodeChunk(const JournalChunk& chunk);
bool DecodeChunk(std::string_view bytes, JournalChunk* chunk);

class Database {
 public:
  static constexpr int64_t kDefaultLimit = -2;  // of a journal's size: no PRAGMA has set one

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
    if (position >> 32 != before >> 32) BeginWal(region0);
    c->chain_end.store(uint64_t{max_frame} << 32 | words[2], std::memory_order_release);
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
    return (inode == 0 && id != kNoFile) ||
           (inode == id.inode && control_->file_device.load(std::memory_order_relaxed) == id.device);
  }

  // --- the chain of WALs. Each of these reads the wal-index at `region0`, decides by vfs/wal_chain.h, and notes the
  // verdict. They are called where SQLite's own locks keep the WAL from being restarted, but for Look. A verdict that
  // cannot be noted (no lock, no memory) ends what is known: the leader compares.

  // The first of our processes came, or somebody else's did while none of ours was there: judges once, after the
  // connection has its first read lock. Whoever recovers the wal-index (`recovered`) judges again.
  void JudgeChain(const volatile void* region0, bool recovered) noexcept EXCLUDES(chain_mutex_);
  // A look from outside: by the leader, and before a checkpoint changes the file. The wal-index as it was then, and the
  // chain as it is now; kUnavailable when the index does not settle.
  Result<WalChain> Look(const volatile void* region0, WalIndexHeader* header) EXCLUDES(chain_mutex_);
  // What a connection that holds a read mark has seen: no WAL was restarted since but, with mark 0, once.
  void SeeEnd(const WalSeen& seen) EXCLUDES(chain_mutex_);
  // The last connection has checkpointed the WAL, deletes it next, and has the whole file locked: notes how it leaves
  // the file, so that whoever opens it next can tell which WAL comes next. Waits until the file's time would change.
  void NoteClosed() noexcept EXCLUDES(chain_mutex_);
  // While the live WAL is empty: the same, by the leader, once the file's time would change. True when that is all that
  // it waits for.
  bool NoteQuiet(const volatile void* region0) EXCLUDES(chain_mutex_);
  // The same by a connection that leaves, if it is the last of this process: waits for the time to change.
  void AwaitQuiet(const volatile void* region0) noexcept EXCLUDES(gate_, chain_mutex_);
  // The chain alone; for whoever has no wal-index. The database is not in use.
  Result<WalChain> Chain() EXCLUDES(chain_mutex_);

  // The restart gate. Called while no other connection can write or restart the WAL (the caller holds the write lock,
  // or the whole file), before frames may die. Afterwards every committed frame is in the journal, the spool or the
  // replica. A bounded local copy at most; never waits for the network. When it cannot (disk full, bound reached), it
  // raises `overflow` and lets the application go on: the leader heals by difference.
  // kClose: the last close, which checkpoints next. With the others all of the WAL is in the database file already.
  enum class RestartBy { kClose, kWriter, kCheckpoint };
  void PassGate(const volatile void* region0, RestartBy by) noexcept EXCLUDES(gate_);

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

  // A connection of this process begins or ends to use the wal-index. With the first user to come after there was none,
  // the chain must be judged: nobody of ours knows what happened meanwhile, and SQLite may count from 0 again.
  void AddUser() EXCLUDES(gate_);
  void RemoveUser() EXCLUDES(gate_);
  // When no connection of any process uses it: gates need keep no frames any more (`active` is cleared).
  void ForgetIfUnused() EXCLUDES(gate_);

  // Microseconds that a COMMIT through this process waits for the store; 0: it does not (sync=interval).
  void SetCommitWait(int64_t micros) { commit_wait_.store(micros, std::memory_order_relaxed); }
  int64_t commit_wait() const { return commit_wait_.load(std::memory_order_relaxed); }

  // Replication could not be started for want of a thread or memory: the next commit of this process tries again.
  void SetUnserved(bool unserved) { unserved_.store(unserved, std::memory_order_relaxed); }
  bool unserved() const { return unserved_.load(std::memory_order_relaxed); }

  // The VFS that the application opens the database with; ours must be the same. Empty: the default.
  void SetVfs(const std::string& name);
  std::string vfs() const;

  // How the application's last close wants the WAL to be left; our own connection, which closes after it, obeys.
  // `journal_size_limit`: in bytes, -1 for none, as its PRAGMA takes it; kDefaultLimit: SQLite's default.
  void SetCloseMode(bool persist_wal, bool no_checkpoint, int64_t journal_size_limit) {
    persist_wal_.store(persist_wal, std::memory_order_relaxed);
    no_checkpoint_.store(no_checkpoint, std::memory_order_relaxed);
    journal_size_limit_.store(journal_size_limit, std::memory_order_relaxed);
  }
  bool persist_wal() const { return persist_wal_.load(std::memory_order_relaxed); }
  bool no_checkpoint() const { return no_checkpoint_.load(std::memory_order_relaxed); }
  int64_t journal_size_limit() const { return journal_size_limit_.load(std::memory_order_relaxed); }

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
  void BeginWal(const volatile void* region0) noexcept EXCLUDES(chain_mutex_);
  // Holds the lock on the chain, among threads and processes.
  class SCOPED_CAPABILITY ChainLock {
   public:
    // Throws when there is no lock to be had, which only a kernel without memory says.
    explicit ChainLock(Database* database) ACQUIRE(database->chain_mutex_) NO_THREAD_SAFETY_ANALYSIS
        : database_(database),
          lock_(database->chain_mutex_) {
      if (!Lock(database->lock_fd_.get(), LockByte::kChain, LockPath(database->folder_)).ok()) throw std::bad_alloc();
    }
    ~ChainLock() RELEASE() NO_THREAD_SAFETY_ANALYSIS { Unlock(database_->lock_fd_.get(), LockByte::kChain); }
    ChainLock(const ChainLock&) = delete;
    ChainLock& operator=(const ChainLock&) = delete;

   private:
    Database* const database_;
    MutexLock lock_;
  };
  // True when another chain begins.
  bool NoteGate(const WalIndexHeader& header, RestartBy by) EXCLUDES(chain_mutex_);
  WalChain LoadChain() const;
  void StoreChain(const WalChain& before, const WalChain& chain);
  // Observes or, unless that is done, judges. `look`: from outside SQLite's locks.
  void Settle(const WalIndexHeader& header, bool look, WalChain* chain) REQUIRES(chain_mutex_);
  // Of the WAL that the wal-index describes; {0, 0} when it cannot be read.
  CommitCount CountCommits(const WalIndexHeader& header) const;
  void LoseChain() noexcept;
  // Whoever has the next read lock judges.
  void UnjudgeChain() noexcept EXCLUDES(chain_mutex_);
  void MoveEnd(const WalChain& before, const WalSeen& seen);
  Status LockGateFile() REQUIRES(gate_);
  void UnlockGateFile() REQUIRES(gate_);
  // Copies frames first..last of the WAL that `header` describes into the journal and moves `durable`; false when the
  // WAL was restarted meanwhile, which leaves the journal as it was.
  Result<bool> Append(const volatile void* region0, const WalIndexHeader& header, uint32_t first, uint32_t last)
      REQUIRES(gate_);
  // PassGate; throws when there is no memory.
  void KeepFrames(const volatile void* region0, RestartBy by) EXCLUDES(gate_);
  std::string JournalPath(uint64_t index) const;

  const std::string path_;
  const std::string folder_;
  const bool fine_times_;  // of the file system: see Tick in vfs/database_chain.cc
  const std::unique_ptr<ControlMapping> mapping_;
  ControlBlock* const control_;
  const uint64_t control_inode_;
  std::atomic<int64_t> commit_wait_{0};
  std::atomic<bool> unserved_{false};
  std::atomic<bool> persist_wal_{false};
  std::atomic<bool> no_checkpoint_{false};
  std::atomic<int64_t> journal_size_limit_{kDefaultLimit};
  mutable Mutex vfs_mutex_;
  std::string vfs_ GUARDED_BY(vfs_mutex_);
  // The gate lock: this mutex among the process's threads, an open-file-description lock on byte 1 of `lock` among
  // processes (the kernel drops it when its holder dies). Held for memory and local file writes only.
  Mutex gate_;
  // Taken after gate_, with byte 6 of `lock`: held for a look at the wal-index and, at most, a reading of the WAL.
  Mutex chain_mutex_;
  // Of `lock`: all byte locks of this process for this database are this one description's. Bytes 1 and 3 are taken
  // and freed under gate_, byte 6 under chain_mutex_, the leadership's by whoever has the turn.
  UniqueFd lock_fd_;
  Turn leadership_;
  int users_ GUARDED_BY(gate_) = 0;  // while not 0: a shared lock on byte 3 of `lock`
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_DATABASE_H_

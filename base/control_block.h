// The control block: <database>-replica/control, mapped by every process that has the database open with libreplica.
//
// It is a cache that may be deleted at any time; the truth is the WAL, the spool and the replica. All fields are
// atomics. Who writes what, and the order that readers may rely on, stands beside each field.
#ifndef LIBREPLICA_BASE_CONTROL_BLOCK_H_
#define LIBREPLICA_BASE_CONTROL_BLOCK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/histogram.h"
#include "base/status.h"

namespace replica {

enum class ReplicaState : uint32_t {
  kOff = 0,        // no leader
  kSnapshot = 1,   // the first snapshot is being made or uploaded
  kStreaming = 2,  // commits flow; nothing waits longer than a turn
  kBehind = 3,     // the store does not take what is captured
  kResync = 4,     // finding the pages that differ
  kFenced = 5,     // another writer has appended to the replica; this one stopped
  kError = 6,      // cannot go on without a person: last_error says why
};
const char* StateName(ReplicaState state);

// wake_at: the tap wakes the leader when the committed frame reaches it.
constexpr uint64_t kWakeNever = UINT64_MAX;  // the leader is awake, or a wake-up is on its way
constexpr uint64_t kWakeAtAnyCommit = 0;

struct CommitTime {
  std::atomic<uint64_t> position;  // packed; written after `time` (release)
  std::atomic<int64_t> time;       // wall clock, microseconds
};
constexpr uint32_t kCommitTimes = 1024;  // power of two

struct ControlBlock {
  std::atomic<uint64_t> magic;  // set last when a process initialises the block
  std::atomic<uint64_t> boot;   // hash of the kernel's boot id: a block of an earlier boot is worthless

  // --- the tap's line: written by whoever holds SQLite's WAL write lock, hence by one thread of one process at a time.
  alignas(64) std::atomic<uint64_t> committed;  // packed position of the last commit (seq_cst against wake_at)
  std::atomic<uint32_t> committed_changes;      // SQLite's iChange at it; stored before `committed`
  std::atomic<uint32_t> time_next;              // index of the next CommitTime
  std::atomic<uint64_t> chain_end;     // of the chain below: last frame seen << 32 | iChange there, in one word
  std::atomic<uint32_t> commit_wakes;  // times a commit woke the leader
  // A commit that was not captured when the ring of times came to be overwritten: how old the oldest is, however many
  // follow. Means something while captured_changes has not reached oldest_changes.
  std::atomic<int64_t> oldest_time;      // wall clock, microseconds; stored before oldest_changes
  std::atomic<uint32_t> oldest_changes;  // SQLite's iChange at it
  // The chain of WALs (vfs/wal_chain.h), but for its end. Two slots: chain_turn is raised after the other slot was
  // written, so that a process that is killed leaves a whole one. Changed and read under lock byte 6.
  struct Chain {
    std::atomic<uint64_t> id;
    std::atomic<uint64_t> salts;
    std::atomic<uint64_t> opened;
    std::atomic<uint64_t> left;
    std::atomic<uint32_t> ordinal;
    std::atomic<uint32_t> previous_end;
    std::atomic<uint32_t> left_end;
    std::atomic<uint32_t> judged;
  };
  Chain chain[2];
  std::atomic<uint32_t> chain_turn;  // chain[chain_turn % 2] counts

  // --- what the tap reads: written by the leader.
  alignas(64) std::atomic<uint32_t> active;  // 1: a position is known, so the restart gate must let no frame die
  std::atomic<uint64_t> durable;             // packed: frames up to here are in the journal, the spool or the replica
  std::atomic<uint64_t> wake_at;             // packed threshold, kWakeNever or kWakeAtAnyCommit (seq_cst)
  std::atomic<uint32_t> wake_word;           // futex the leader sleeps on

  // --- journal: changed under the gate lock only.
  alignas(64) std::atomic<uint64_t> journal_index;  // the file that is appended to
  std::atomic<uint64_t> journal_size;               // its valid bytes
  std::atomic<uint64_t> journal_total;              // bytes in all journal files
  std::atomic<uint32_t> overflow;     // 1: a gate had to let frames go (spool bound, disk full); the leader heals it
  std::atomic<uint64_t> spool_bytes;  // leader: encoded segments not yet acknowledged
  std::atomic<uint64_t> spool_limit;  // leader

  // --- status: written by the leader, read by anyone. Each value stands alone but where noted.
  alignas(64) std::atomic<uint32_t> ack_word;  // futex for those who wait; one more after each change below
  std::atomic<uint32_t> waiters;               // threads in a wait on ack_word (a hint: a killed one stays counted)
  std::atomic<uint32_t> state;                 // ReplicaState
  std::atomic<int32_t> leader_pid;             // 0: none
  std::atomic<uint32_t> leader_dedicated;      // 1: uploading is what the leader's process is for
  std::atomic<uint32_t> leader_stopping;       // 1: it sends what was committed before and ends
  std::atomic<uint64_t> captured_checksum;     // of the database at captured_txid; stored before it
  std::atomic<uint64_t> captured_txid;
  std::atomic<uint32_t> captured_changes;  // iChange at it: committed_changes minus this are not captured yet, if it is
                                           // of the same life and `committed` differs from …
  std::atomic<uint64_t> captured_commit;   // … this: `committed` as it was when all up to there was captured
  std::atomic<uint64_t> acknowledged_txid;
  std::atomic<int64_t> acknowledged_time;     // wall clock, microseconds; 0: never
  std::atomic<int64_t> unacknowledged_since;  // commit time of the oldest captured commit not acknowledged; 0: none
  std::atomic<uint64_t> generation[2];
  std::atomic<uint64_t> database[2];
  std::atomic<uint64_t> puts;
  std::atomic<uint64_t> put_errors;
  std::atomic<uint64_t> bytes_raw;     // page bytes captured
  std::atomic<uint64_t> bytes_stored;  // bytes of segments acknowledged
  std::atomic<uint64_t> sequence;      // last acknowledged log segment
  std::atomic<int64_t> looked_at;      // wall clock, microseconds: the replica was last seen to be there
  std::atomic<int64_t> error_since;    // wall clock, microseconds; 0: no error now
  Histogram put_time;                  // from the start of a PUT to its good answer
  Histogram acknowledge_time;          // from the first commit of a log segment to its acknowledgement
  Histogram snapshot_time;             // from the start of a snapshot to its acknowledgement

  // --- requests to the leader from any process: raise `wanted`, wake, wait on ack_word until `done` reaches it.
  std::atomic<uint64_t> sync_wanted;
  std::atomic<uint64_t> sync_done;  // all commits of before that request are acknowledged
  std::atomic<uint32_t> snapshot_wanted;
  std::atomic<uint32_t> snapshot_done;
  std::atomic<uint32_t> mark_wanted;  // end a segment at a scanned state of the database
  std::atomic<uint32_t> mark_done;    // stored after the three below
  std::atomic<uint64_t> mark_txid;
  std::atomic<uint64_t> mark_checksum;  // of the database file and WAL as read back
  std::atomic<uint64_t> mark_expected;  // what libreplica believed it to be

  std::atomic<uint32_t>
      handover;  // raised by a dedicated uploader that wants the leadership, before it wakes the leader

  // Commits that no tap has seen: of processes without libreplica, noticed by the leader in the wal-index.
  std::atomic<uint32_t> observed_changes;  // SQLite's iChange at the newest
  std::atomic<int64_t> observed_time;  // wall clock, microseconds: when the oldest not captured was seen; 0: none is

  // The database file that the leader captures (FileId): a connection on another file, one that was replaced or
  // removed, neither taps nor passes gates. Written by the leader when it attaches, inode last; inode 0: not known yet.
  std::atomic<uint64_t> file_device;
  std::atomic<uint64_t> file_inode;

  // Text guarded by a sequence number: odd while it is being written.
  struct Text {
    std::atomic<uint32_t> version;
    std::atomic<uint32_t> length;
    std::atomic<uint64_t> words[64];
  };
  Text url;
  Text last_error;

  alignas(64) CommitTime times[kCommitTimes];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A wall-clock time of the block, 0 unless it is one of the years 1970 to 9999: anybody can write into the block, and
// times are subtracted and printed.
int64_t LoadTime(const std::atomic<int64_t>& micros);
void StoreText(ControlBlock::Text* text, const std::string& value);
std::string LoadText(const ControlBlock::Text& text);

// Maps the control block of a replica folder, which is there, creating the block when it is missing, damaged or of an
// earlier boot.
class ControlMapping {
 public:
  static Result<std::unique_ptr<ControlMapping>> Open(const std::string& folder);
  // Maps an existing block only; kNotFound when the folder has none.
  static Result<std::unique_ptr<ControlMapping>> OpenExisting(const std::string& folder);
  ~ControlMapping();
  ControlMapping(const ControlMapping&) = delete;
  ControlMapping& operator=(const ControlMapping&) = delete;

  ControlBlock* block() const { return block_; }
  // True once a page of it was lost because its file was cut short (cli/lost_mapping.h): nobody else sees it any more.
  bool lost() const;

 private:
  explicit ControlMapping(ControlBlock* block);
  ControlBlock* const block_;
};

// Notes that a page at this address was lost, if it is of a control block that is mapped. For signal handlers: no lock.
bool LoseControlPage(const void* address);

// Raises the wake word and wakes the leader, whatever it waits for.
void WakeLeader(ControlBlock* block);
// Tells those who wait on ack_word that status changed.
void NotifyWaiters(ControlBlock* block);

}  // namespace replica

#endif  // LIBREPLICA_BASE_CONTROL_BLOCK_H_

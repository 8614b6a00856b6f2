// Which WAL follows which: the proof of succession, in one place.
//
// SQLite starts a WAL anew once all of it is in the database file. Its salts do not tell what happened in between: a
// process without libreplica may have written, checkpointed and restarted. Whoever holds SQLite's own locks knows in
// that moment, and writes the verdict down. A chain is a row of WALs, numbered from 1, without a commit that nobody of
// us saw die in between. Where that cannot be shown another chain begins, and the leader compares.
//
// What counts is SQLite's count of commits (iChange, in the wal-index). It goes on by one at each commit, of whatever
// process, and a restart of the WAL leaves it alone; only a recovery of the wal-index sets it to 0.
//
//   Observe  who commits, restarts, closes, or looks as the leader, while the wal-index lives:
//            the same WAL → how far it has come. Another one → it is the next if it holds all that was counted since.
//   Judge    the first of our processes to come, and whoever recovers the wal-index: the count says nothing then.
//            The database file is as it was left when all of the last WAL was in it → a WAL that lies there now is the
//            next one, since a second one would have needed a checkpoint. Or the last WAL still lies there.
//
// Pure functions: vfs/database.h keeps the chain in the control block and says who may change it when.
// tests/vfs/wal_chain_test.cc goes through every order of events of a model of SQLite with processes of both kinds.
// What no rule sees is a recovery that a process without libreplica runs while ours have the database open, followed by
// as many commits as there were before it (docs/invariants.md).
#ifndef LIBREPLICA_VFS_WAL_CHAIN_H_
#define LIBREPLICA_VFS_WAL_CHAIN_H_

#include <cstdint>

#include "uploader/segment.h"
#include "vfs/wal_format.h"

namespace replica {

// What the wal-index says.
struct WalSeen {
  WalSalts salts{};
  uint32_t end = 0;    // the last committed frame (mxFrame); 0: the WAL holds no commit
  uint32_t count = 0;  // SQLite's count of commits (iChange)
};

struct WalChain {
  uint64_t id = 0;            // random; 0: no chain has begun
  uint32_t ordinal = 0;       // of the WAL with `salts`, from 1
  uint32_t previous_end = 0;  // the last frame of the WAL before it; 0 for the first one
  WalSalts salts{};
  uint32_t end = 0;     // the last frame of this WAL that was seen; 0: it has no commit yet, or none was seen
  uint32_t count = 0;   // SQLite's count then
  uint64_t opened = 0;  // the file's stamp when the chain began with the first of our processes; 0: it began otherwise
  uint64_t left = 0;    // the file's stamp when it held all of this WAL, up to left_end; 0: not known
  uint32_t left_end = 0;  // frame
  bool judged = false;    // since the first of the processes that have the database open came

  bool operator==(const WalChain&) const = default;
};

// The commits in a WAL. A frame that repeats the commit frame before it may be a commit or padding (walFrames).
struct CommitCount {
  uint32_t least = 0;
  uint32_t most = 0;
};

// True when Observe must be told how many commits the live WAL holds, up to seen.end.
bool NeedsCount(const WalChain& chain, const WalSeen& seen);

// `fresh`: the id of the chain that begins if need be, not 0.
void Observe(const WalSeen& seen, const CommitCount& commits, uint64_t fresh, WalChain* chain);

// `stamp`: of the file, looked at after `seen` was; `settled`: whoever writes to the file from now on changes the
// stamp.
void Judge(const WalSeen& seen, uint64_t stamp, bool settled, uint64_t fresh, WalChain* chain);

// The file holds all that was seen of the WAL, and has this stamp (settled; 0: not known).
void Leave(uint64_t stamp, WalChain* chain);

// True when nothing is committed that `at` does not have, if the live WAL has no commit.
bool IsEnd(const WalPosition& at, const WalChain& chain);
// True when `at` lies in, or at the end of, that WAL of chain `id`.
inline bool IsIn(const WalPosition& at, uint64_t id, uint32_t ordinal) {
  return id != 0 && at.chain == id && at.ordinal == ordinal;
}
// True when a WAL of chain `id` comes next after `at`.
bool Follows(const WalPosition& at, uint64_t id, uint32_t ordinal, uint32_t previous_end);
// The position at which everything that was seen is captured, when the live WAL has no commit.
WalPosition EndOf(const WalChain& chain);

}  // namespace replica

#endif  // LIBREPLICA_VFS_WAL_CHAIN_H_

// What WalSource gathers while it reads: private to wal_source.cc and wal_source_journal.cc.
#ifndef LIBREPLICA_VFS_WAL_READING_H_
#define LIBREPLICA_VFS_WAL_READING_H_

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "vfs/wal_source.h"

namespace replica {

struct WalSource::Reading {
  Batch batch;
  WalPosition at;                  // the last frame read
  std::vector<Batch::Frame> open;  // frames of the commit that is not closed yet
  FrameHeader last_commit;         // header of the last commit frame
  bool has_last_commit = false;
  uint64_t budget = 0;
  const WalPosition* until = nullptr;
  std::unordered_map<uint64_t, int64_t> times;  // packed position → commit time
  uint32_t times_next = 0;                      // of the ring: what comes after it is not in `times` yet
  int64_t last_time = 0;
  const std::map<uint64_t, int64_t>* observed = nullptr;  // WalSource::observed_

  // When the WAL was first seen to reach this commit; of one that was never looked at, the time of the one before.
  int64_t ObservedTime(const WalPosition& commit) const {
    const uint64_t position = commit.Packed();
    const auto end = observed->lower_bound(position);
    return end != observed->end() && end->first >> 32 == position >> 32 ? end->second : last_time;
  }
  std::string scratch[2];

  // `until` has no salts when it lies between two WALs.
  bool InLastWal() const {
    return until != nullptr &&
           (IsIn(at, until->chain, until->ordinal) || (until->salts != WalSalts{} && at.SameWal(*until)));
  }
  bool Reached() const { return InLastWal() && at.frame >= until->frame; }
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_WAL_READING_H_

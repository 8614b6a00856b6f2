// What a replica holds, for people: its segments with their TXIDs and times. Any thread but the store's own.
#ifndef LIBREPLICA_UPLOADER_HISTORY_H_
#define LIBREPLICA_UPLOADER_HISTORY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "uploader/store.h"

namespace replica {

struct HistoryEntry {
  bool snapshot = false;
  bool folded = false;  // only max_txid is restorable
  Id generation{};
  uint64_t sequence = 0;  // of a log segment; of a snapshot, the last log segment that it includes
  uint64_t min_txid = 0;
  uint64_t max_txid = 0;
  int64_t first_time = 0;  // of its first commit, wall clock microseconds
  int64_t last_time = 0;
  uint32_t pages = 0;  // of the database after it
  uint64_t bytes = 0;  // of the object
  std::string key;
};

// Log segments that are missing: no state in them or behind them is restorable, as far as the next snapshot.
struct HistoryHole {
  Id generation{};
  uint64_t first = 0;  // sequences
  uint64_t last = 0;
};

// A place where the clock was set back between two commits. A restore to a time between `to` and `from` ends before the
// first commit that is later than the time, hence at or before `txid`: what follows needs a TXID.
struct ClockStep {
  Id generation{};
  uint64_t txid = 0;  // the last commit before the step
  int64_t from = 0;   // its time
  int64_t to = 0;     // of the commit after it
};

struct History {
  std::vector<HistoryEntry> entries;   // by generation; snapshots first, then the log, each ascending
  std::vector<HistoryHole> holes;      // between log segments, and between the first snapshot and the log
  std::vector<ClockStep> clock_steps;  // as far as `entries` shows them
  uint64_t generations = 0;
  uint64_t objects = 0;  // all there are
  uint64_t bytes = 0;
  bool sampled = false;  // entries leaves some log segments out
};

// Reads one replica's history. Objects do not change, so a reader that is kept reads each once.
class HistoryReader {
 public:
  // `store` must outlive it.
  explicit HistoryReader(Store* store) : store_(store) {}

  // All snapshots, and at most `most_log` log segments of each generation, evenly picked with the first and the last
  // among them; 0: all. Costs a listing, and two or three small reads an entry that was not read before.
  Result<History> Read(size_t most_log);

 private:
  Status Fetch(std::vector<HistoryEntry>* entries);

  Store* const store_;
  std::map<std::string, HistoryEntry> known_;  // by key
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_HISTORY_H_

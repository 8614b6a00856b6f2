// The layout of a replica in its store (docs/format.md, "Layout") and how to look into it.
//
//   <generation>/log/<seq %016x>      <generation>/snapshot/<txid %016x>
//
// A generation that another one took the place of has an END object behind its last log segment, under the next number.
// Bundles and increments have their place in the format and are not written yet; names that are not understood are left
// alone.
#ifndef LIBREPLICA_UPLOADER_REPLICA_H_
#define LIBREPLICA_UPLOADER_REPLICA_H_

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "uploader/segment_reader.h"
#include "uploader/store.h"

namespace replica {

// Which replica folder began the first generation at a URL; text, for people.
constexpr char kClaimKey[] = "claim";
constexpr uint64_t kClaimLimit = 4096;
std::string GenerationPrefix(const Id& generation);
std::string LogKey(const Id& generation, uint64_t sequence);
std::string SnapshotKey(const Id& generation, uint64_t txid);

struct LogObject {
  uint64_t sequence = 0;
  uint64_t size = 0;
};
struct SnapshotObject {
  uint64_t txid = 0;
  uint64_t size = 0;
};

// Generations of a replica, oldest first.
Result<std::vector<Id>> ListGenerations(Store* store);
// Log segments with a sequence above `after`, ascending. The object that ends the log is none of them: its header goes
// to `end`, when that is not null.
Result<std::vector<LogObject>> ListLog(Store* store, const Id& generation, uint64_t after,
                                       std::optional<SegmentHeader>* end = nullptr);
// Snapshots, ascending.
Result<std::vector<SnapshotObject>> ListSnapshots(Store* store, const Id& generation);

// An object's bytes by range, read in pieces of 8 MiB; while one is used the next is fetched.
class StoreBytes : public ObjectBytes {
 public:
  // `store` must outlive it.
  StoreBytes(Store* store, std::string key, uint64_t size);
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  Result<std::string> Read(uint64_t offset, uint64_t size) override;
  // Starts fetching the first piece, on a thread of its own.
  void Prefetch();

 private:
  uint64_t PieceSize(uint64_t at) const;
  void FetchAhead(uint64_t at);

  Store* const store_;
  const std::string key_;
  const std::string name_;
  const uint64_t size_;
  uint64_t piece_at_ = 0;
  std::string piece_;
  uint64_t next_at_ = 0;
  std::future<Result<std::string>> next_;
};

// Header and trailer of a stored segment, without its index: two small range reads.
Result<Segment> ReadSegmentEnds(Store* store, const std::string& key, uint64_t size);

// Where a generation's history ends.
struct ReplicaHead {
  bool any = false;       // false: the generation holds no snapshot and no log
  Segment last;           // header and trailer of the segment that ends it
  uint64_t sequence = 0;  // last log segment; 0: none
  uint64_t txid = 0;
  uint64_t snapshot_txid = 0;  // the newest snapshot; 0: none
  uint64_t snapshot_bytes = 0;
  uint64_t log_bytes = 0;            // of the log segments that follow it
  std::optional<SegmentHeader> end;  // of the object that ends the log: nothing can be appended any more
};
Result<ReplicaHead> ReadHead(Store* store, const Id& generation);

// Looks by names whether everything is there that a restore of the state at log segment `sequence` needs: that
// snapshot, and each log segment behind it. kNotFound names what is missing, or a snapshot that is damaged.
Status CheckStored(Store* store, const Id& generation, uint64_t snapshot_txid, uint64_t sequence);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_REPLICA_H_

#include "uploader/verify.h"

#include <algorithm>

#include "uploader/replica.h"
#include "uploader/segment_reader.h"

namespace replica {
namespace {

struct Checked {
  bool ok = false;
  Segment segment;
};

class ObjectsVerifier {
 public:
  ObjectsVerifier(Store* store, const Id& generation, const VerifyProgress& progress)
      : store_(store), generation_(generation), progress_(progress) {}

  Result<ObjectsReport> Run() {
    REPLICA_ASSIGN(auto snapshots, ListSnapshots(store_, generation_));
    REPLICA_ASSIGN(auto log, ListLog(store_, generation_, 0));
    for (const SnapshotObject& s : snapshots) planned_ += s.size;
    for (const LogObject& entry : log) planned_ += entry.size;
    if (snapshots.empty()) Add(store_->url() + ": generation " + HexEncode(generation_) + " has no snapshot");
    uint64_t included = 0;  // the last log segment that a snapshot makes unnecessary
    for (const SnapshotObject& s : snapshots) {
      const std::string key = SnapshotKey(generation_, s.txid);
      REPLICA_ASSIGN(Checked checked, Check(key, s.size));
      if (!checked.ok) continue;
      if (!checked.segment.snapshot() || checked.segment.trailer.max_txid != s.txid)
        Add(ObjectUrl(*store_, key) + ": is not the snapshot that its name says");
      else
        included = std::max(included, checked.segment.header.sequence);
    }
    uint64_t expected = log.empty() ? 0 : std::min(log.front().sequence, included + 1);
    bool follows = false;
    Segment previous;
    for (const LogObject& entry : log) {
      if (entry.sequence != expected) {
        std::string hole = ObjectUrl(*store_, LogKey(generation_, expected)) +
                           ": missing: the log has a hole before segment " + std::to_string(entry.sequence);
        if (entry.sequence - 1 > included) {
          Add(std::move(hole));
        } else if (report_.warnings.size() < ObjectsReport::kMostErrors) {
          report_.warnings.push_back(std::move(hole));
        }
        follows = false;
      }
      expected = entry.sequence + 1;
      const std::string key = LogKey(generation_, entry.sequence);
      REPLICA_ASSIGN(Checked checked, Check(key, entry.size));
      if (!checked.ok) {
        follows = false;
        continue;
      }
      const Segment& s = checked.segment;
      if (s.header.kind != SegmentKind::kLog || s.header.sequence != entry.sequence)
        Add(ObjectUrl(*store_, key) + ": is not the log segment that its name says");
      if (follows && (s.header.min_txid != previous.trailer.max_txid + 1 ||
                      s.trailer.checksum_before != previous.trailer.checksum_after))
        Add(ObjectUrl(*store_, key) + ": does not follow the segment before it");
      previous.header = s.header;
      previous.trailer = s.trailer;
      follows = true;
    }
    return std::move(report_);
  }

 private:
  void Add(std::string error) {
    if (report_.errors.size() < ObjectsReport::kMostErrors) report_.errors.push_back(std::move(error));
  }

  // Damage goes into the report; only a store that does not answer is an error.
  Result<Checked> Check(const std::string& key, uint64_t size) {
    Checked checked;
    StoreBytes bytes(store_, key, size);
    report_.objects++;
    if (progress_ && !progress_(report_.bytes, planned_))
      return Status(Code::kInterrupted, "the verify was called off");
    report_.bytes += size;
    auto reader = SegmentReader::Open(&bytes);
    Status status = reader.ok() ? (*reader)->CheckSha256() : reader.status();
    if (status.ok() && (*reader)->segment().header.generation != generation_)
      status = Status(Code::kCorrupt, bytes.name() + ": is of another generation");
    if (status.code() == Code::kUnavailable || status.code() == Code::kPermission) return status;
    if (!status.ok()) {
      Add(status.message());
      return checked;
    }
    checked.ok = true;
    checked.segment = (*reader)->segment();
    return checked;
  }

  Store* const store_;
  const Id generation_;
  const VerifyProgress& progress_;
  ObjectsReport report_;
  uint64_t planned_ = 0;
};

}  // namespace

Result<ObjectsReport> VerifyObjects(Store* store, const Id& generation, const VerifyProgress& progress) {
  return ObjectsVerifier(store, generation, progress).Run();
}

}  // namespace replica

// Finds what differs between a live database and what its replica holds, when commits were lost between the two.
//
// In steps of some milliseconds, without keeping the WAL from being restarted: read every page and follow the commits
// that come meanwhile (uploader/page_scan.h); copy those that differ (uploader/snapshot.h); then compress. What is
// committed while many pages are compressed is followed, too, and is another, smaller difference: nothing piles up,
// however fast the writers are. Leader's thread only.
#ifndef LIBREPLICA_UPLOADER_COMPARISON_H_
#define LIBREPLICA_UPLOADER_COMPARISON_H_

#include <memory>
#include <string>

#include "base/status.h"
#include "uploader/page_scan.h"
#include "uploader/snapshot.h"

namespace replica {

class Comparison {
 public:
  // Begins at the source's read view, as PageScan::BeginAtView. `known`: what the replica holds; it outlives the
  // comparison, and changes only before Continue. `few`: bytes of a difference that is compressed before anything that
  // matters has piled up.
  Comparison(Source* source, const PageTable* known, uint64_t few, const EncodeOptions& options);
  // Begins a difference to `known`, which has the database checksum `checksum` (the table's own one, unless some of its
  // pages are not known). `header` has page size, ids, writer, and the sequence and TXID that the difference gets. The
  // segment is written to `path`.
  void Continue(uint64_t checksum, const SegmentHeader& header, std::string path);

  // One step; `now`: wall clock, µs. True when the difference is finished. Without `may_copy` it goes no further than
  // following the commits. kConflict: commits were lost; begin anew. kUnavailable: try this step again later.
  Result<bool> Step(int64_t now, bool may_copy);

  // True when Step can do nothing else without `may_copy`.
  bool CanOnlyFollow() const { return scanned_ && (difference_ == nullptr || !difference_->frozen()); }

  // Finished: the segment, of size 0 when nothing differs, …
  Result<EncodedSegment> Finish();
  // … what it makes of `known`, …
  void Apply(PageTable* known) const;
  // … where it ends, and whether commits after that were followed: then another difference must be made. If not, they
  // are not collected yet.
  const WalPosition& end() const { return trailer_.wal; }
  int64_t time() const { return trailer_.created; }
  bool followed() const { return followed_; }

 private:
  Result<bool> Read();
  Result<bool> Copy(int64_t now);
  Status FreezeInView(int64_t now);
  Status Freeze(const WalPosition& end, int64_t now);

  Source* const source_;
  const PageTable* const known_;
  const uint64_t few_;
  const EncodeOptions options_;
  PageScan scan_;
  bool all_read_ = false;
  bool scanned_ = false;  // the scan's hashes are one state
  uint64_t checksum_ = 0;
  SegmentHeader header_;
  std::string path_;
  std::unique_ptr<SnapshotBuilder> difference_;
  SegmentTrailer trailer_;  // of the frozen difference
  bool followed_ = false;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_COMPARISON_H_

#include "uploader/comparison.h"

#include <utility>

namespace replica {

Comparison::Comparison(Source* source, const PageTable* known, uint64_t few, const EncodeOptions& options)
    : source_(source), known_(known), few_(few), options_(options), scan_(source, options) {
  scan_.BeginAtView();
}

void Comparison::Continue(uint64_t checksum, const SegmentHeader& header, std::string path) {
  checksum_ = checksum;
  header_ = header;
  header_.kind = SegmentKind::kLog;
  header_.flags = kSegmentFolded | kSegmentResync | kSegmentPageHashes;
  path_ = std::move(path);
  difference_.reset();
  followed_ = false;
}

Result<bool> Comparison::Step(int64_t now, bool may_copy) {
  if (!scanned_) {
    REPLICA_ASSIGN(scanned_, Read());
    return false;
  }
  if (difference_ == nullptr || !difference_->frozen()) {
    if (may_copy) return Copy(now);
    REPLICA_TRY(scan_.Follow(nullptr, difference_.get()).status());
    return false;
  }
  if (difference_->pages().size() * header_.page_size > few_) {
    followed_ = true;
    REPLICA_TRY(scan_.Follow(nullptr).status());
  } else {
    REPLICA_TRY(source_->Relieve());
  }
  return difference_->EncodeSlice();
}

// What was read of a page may be newer than the position: only at the end of the WAL are the hashes one state.
Result<bool> Comparison::Read() {
  if (!all_read_) {
    REPLICA_ASSIGN(all_read_, scan_.ReadSlice(scan_.table().pages()));
  }
  REPLICA_ASSIGN(const bool end, scan_.Follow(nullptr));
  return all_read_ && end;
}

Result<bool> Comparison::Copy(int64_t now) {
  if (difference_ == nullptr) {
    REPLICA_ASSIGN(difference_, SnapshotBuilder::Create(source_, path_, header_.page_size, known_));
  }
  REPLICA_ASSIGN(const bool round_over, difference_->CopySlice(scan_.table()));
  REPLICA_TRY(scan_.Follow(nullptr, difference_.get()).status());
  if (!round_over) return false;
  if (difference_->Differing(scan_.table()) == 0) {
    REPLICA_TRY(Freeze(source_->position(), now));
  } else if (difference_->NeedsView()) {
    REPLICA_TRY(FreezeInView(now));
  }
  return false;
}

Status Comparison::FreezeInView(int64_t now) {
  REPLICA_TRY(source_->BeginView());
  const WalPosition view = source_->view_position();
  Status status = scan_.Follow(&view, difference_.get()).status();
  // Four long readers can hold every read mark, so that a view is older than what is followed.
  if (status.ok() && !source_->AtView())
    status = {Code::kUnavailable, "readers hold every read mark, and writers are busy: a comparison waits for them"};
  if (status.ok() && source_->view_pages() != scan_.table().pages())
    status = {Code::kConflict, "the database has another size than its commits lead to"};
  if (status.ok()) status = Freeze(view, now);
  source_->EndView();
  return status;
}

Status Comparison::Freeze(const WalPosition& end, int64_t now) {
  trailer_ = {};
  trailer_.max_txid = header_.min_txid;
  trailer_.checksum_before = checksum_;
  trailer_.pages_before = known_->pages();
  trailer_.checksum_after = scan_.table().checksum();
  trailer_.pages_after = scan_.table().pages();
  trailer_.created = now;
  trailer_.wal = end;
  Status status = difference_->Freeze(scan_.table(), header_, trailer_, now, options_.level);
  // The pages were read and followed, and yet are others: as if commits were lost.
  if (status.code() == Code::kCorrupt) return {Code::kConflict, status.message()};
  return status;
}

Result<EncodedSegment> Comparison::Finish() {
  if (difference_->pages().empty() && trailer_.pages_before == trailer_.pages_after) return EncodedSegment{};
  return difference_->Finish();
}

void Comparison::Apply(PageTable* known) const {
  known->Resize(trailer_.pages_after);
  for (const uint32_t page : difference_->pages()) known->Set(page, difference_->HashOf(page));
}

}  // namespace replica

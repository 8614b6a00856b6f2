// Comparing: reads the whole database, to find what differs or to prove that nothing does.
#include <utility>

#include "base/fs.h"
#include "uploader/engine.h"

namespace replica {
namespace {

// A difference of this part of the spool's bound is compressed while commits pile up in the journal, which then holds a
// few times as much.
constexpr uint64_t kFewOfSpool = 8;

// A verify reads its last pages in a view when so few are left and so little is to be captured in it, or after so many
// rounds.
constexpr uint32_t kFewPages = 512;
constexpr uint64_t kShortBacklog = 1 << 20;  // bytes: a few milliseconds
constexpr int kMostRounds = 8;

}  // namespace

Status Engine::BeginScan(const std::function<void()>& begin) {
  return WithView([&]() -> Status {
    begin();
    REPLICA_TRY(source_->ResetJournal(true));
    Activate();
    return Ok();
  });
}

Result<PageTable> Engine::ScanAll() {
  PageScan scan(source_, options_.encode);
  REPLICA_TRY(BeginScan([&] { scan.BeginAtView(); }));
  Status status = scan.ReadAll();
  if (status.ok()) return std::move(scan.table());
  control_->active.store(0);
  // Commits were lost meanwhile: the scan is made again.
  if (status.code() == Code::kConflict) return Status(Code::kUnavailable, status.message());
  return status;
}

Status Engine::Resync() {
  // What was captured since is of a file that was not what it was taken for.
  if (std::exchange(state_.unread, false)) DropSpool("the machine was started since, and " + resync_reason_);
  const bool idle = queue_.empty() && !log_in_flight_;
  if (comparison_ == nullptr) {
    // The difference is taken against what the replica is known to hold.
    if (!idle) return Ok();
    REPLICA_TRY(BeginScan([&] {
      comparison_ = std::make_unique<Comparison>(source_, &table_, SpoolLimit() / kFewOfSpool, options_.encode);
    }));
    ContinueResync();
    resync_pages_ = 0;
    resync_txid_ = state_.txid + 1;
    events_.Add("resync", "comparing every page: " + resync_reason_);
  }
  // Differences wait for each other: while the store is away, commits are followed, and nothing piles up.
  auto finished = comparison_->Step(clock_.WallMicros(), idle);
  if (finished.ok()) return *finished ? EndResync() : Ok();
  if (finished.status().code() == Code::kConflict) {
    LoseTrack(finished.status().message());
    attempt_at_ = clock_.SteadyMicros() + kReadAgain;
    return Ok();
  }
  if (finished.status().code() != Code::kUnavailable) comparison_.reset();
  return finished.status();
}

void Engine::ContinueResync() {
  SegmentHeader header = Header();
  header.sequence = state_.sequence + 1;
  header.min_txid = state_.txid + 1;
  comparison_->Continue(state_.checksum, header, SpoolPath(header.sequence));
}

Status Engine::EndResync() {
  auto comparison = std::exchange(comparison_, nullptr);  // after an error it begins anew
  REPLICA_ASSIGN(EncodedSegment encoded, comparison->Finish());
  const EngineState before = state_;
  table_.Begin();
  comparison->Apply(&table_);
  if (encoded.size != 0) {
    state_.txid++;
    state_.sequence++;
    state_.time = comparison->time();
  }
  state_.checksum = table_.checksum();
  // Commits that were followed are in no segment yet: the next leader would have to compare.
  state_.wal = comparison->followed() ? WalPosition{} : comparison->end();
  state_.file = source_->file();
  state_.partial = false;
  state_.stamp = {};
  Status status = Save(table_.Changed());
  if (status.ok() && encoded.size != 0 && state_.checksum != encoded.segment.trailer.checksum_after)
    status = {Code::kInternal, "the difference does not lead to what the database holds"};
  if (!status.ok()) {
    table_.Rollback();
    state_ = before;
    if (encoded.size != 0) (void)RemoveFile(encoded.path);
    return status;
  }
  table_.Commit();
  needs_resync_ = comparison->followed();
  // No request is met yet: the difference may be older than it. The next capture meets it.
  capture_due_ = true;
  if (encoded.size != 0) {
    resync_pages_ += encoded.segment.trailer.version_count;
    control_->spool_bytes.fetch_add(encoded.size);
    Pending pending;
    pending.first_commit = encoded.segment.commits.front().time;
    pending.encoded = std::move(encoded);
    queue_.push_back(std::move(pending));
  }
  if (!needs_resync_ && state_.txid < resync_txid_)
    events_.Add("resync", "no page differs: the history goes on");
  else if (!needs_resync_)
    events_.Add("resync", std::to_string(resync_pages_) + " pages differ; they are TXID " +
                              (state_.txid == resync_txid_ ? "" : std::to_string(resync_txid_) + " to ") +
                              std::to_string(state_.txid) + ". Commits in between cannot be restored one by one");
  if (needs_resync_) {
    comparison_ = std::move(comparison);
    ContinueResync();
  }
  Acknowledge();
  return Ok();
}

// Every page is read after the verify was asked for. What is committed meanwhile is captured as ever; pages that are
// not as captured are read again, the last few in a view of the very state that the verify then tells of. So a commit
// that was lost before it was asked for is found; one that is lost while it runs, by the next. The same proves a file
// that nobody has read since the machine was started.
Status Engine::Mark() {
  if (scan_ == nullptr) {
    const uint32_t wanted = control_->mark_wanted.load();
    if (wanted == control_->mark_done.load() && !state_.unread) return Ok();
    mark_ticket_ = wanted;
    scan_ = std::make_unique<PageScan>(source_, options_.encode);
    scan_rounds_ = 0;
  }
  REPLICA_ASSIGN(const bool all, scan_->ReadSlice(table_.pages()));
  if (!all) return Ok();
  uint32_t left = 0;
  Status captured = Capture(nullptr, [&]() -> Status {
    REPLICA_ASSIGN(left, scan_->ReadDiffering(table_, false));
    return Ok();
  });
  // Nothing is sent before this is done, and so the spool may be what fills the disk.
  if (captured.code() == Code::kFull && state_.unread)
    LoseTrack(captured.message());
  else
    REPLICA_TRY(std::move(captured));
  if (needs_resync_) return Ok();
  if (left == 0) return EndMark(true);
  if ((left > kFewPages || source_->Backlog() > kShortBacklog) && ++scan_rounds_ < kMostRounds) return Ok();
  bool same_size = false;
  REPLICA_TRY(CaptureInView([&](const WalPosition&) -> Status {
    same_size = source_->view_pages() == table_.pages();
    return scan_->ReadDiffering(table_, true).status();
  }));
  return needs_resync_ ? Ok() : EndMark(same_size);
}

Status Engine::EndMark(bool same_size) {
  if (Replaced()) return Ok();
  const auto scan = std::exchange(scan_, nullptr);
  const uint64_t read = scan->table().checksum();
  control_->mark_txid.store(state_.txid);
  control_->mark_checksum.store(read);
  control_->mark_expected.store(table_.checksum());
  control_->mark_done.store(mark_ticket_, std::memory_order_release);
  NotifyWaiters(control_);
  if (read != table_.checksum() || !same_size)
    LoseTrack("pages were read that differ from what the commits lead to");
  else if (std::exchange(state_.unread, false))
    (void)Save({});
  return Ok();
}

}  // namespace replica

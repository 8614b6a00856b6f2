// Capture: commits into segments, the database into snapshots; all of it local.
#include <algorithm>
#include <utility>

#include "base/fs.h"
#include "uploader/engine.h"

namespace replica {
namespace {

constexpr uint64_t kLeastLogForSnapshot = 1 << 20;
constexpr uint64_t kLargestPut = 5ULL << 30;  // S3's limit for one PUT

}  // namespace

Status Engine::Capture(const WalPosition* until, const std::function<Status()>& between) {
  // Read before the frames: commits that a request follows are in the WAL by now, though perhaps not in a view.
  const uint64_t ticket = control_->sync_wanted.load(std::memory_order_seq_cst);
  const uint32_t changes = control_->committed_changes.load();
  const uint64_t committed = control_->committed.load(std::memory_order_seq_cst);
  auto batch = source_->Collect(options_.encode.fold_above, until);
  if (!batch.ok()) {
    if (batch.status().code() != Code::kConflict) return batch.status();
    LoseTrack(batch.status().message());
    return Ok();
  }
  if (batch->empty()) {
    // A journal of frames that were captured meanwhile has done its duty.
    if (!batch->journals.empty()) source_->Release(*batch);
    if (batch->whole) {
      captured_ticket_ = ticket;
      capture_due_ = false;
      control_->captured_changes.store(changes);
      control_->captured_commit.store(committed);
    } else if (until == nullptr) {
      // The WAL was restarted again and again, or its index is being rebuilt.
      attempt_at_ = clock_.SteadyMicros() + kReadAgain;
    }
    Acknowledge();
    return between ? between() : Ok();
  }
  const EngineState before = state_;
  SegmentHeader header = Header();
  header.sequence = state_.sequence + 1;
  header.min_txid = state_.txid + 1;
  table_.Begin();
  BatchEncoder encoder(*batch, source_, &table_, header, clock_.WallMicros(), options_.encode);
  Status status = encoder.Prepare();
  if (status.ok()) {
    state_.txid = encoder.max_txid();
    state_.sequence = header.sequence;
    state_.checksum = table_.checksum();
    state_.time = batch->commits.back().time;
    state_.wal = batch->end;
    state_.stamp = {};
  }
  // What else meets an error is reported after the batch is safe.
  Status between_status;
  if (status.ok() && builder_ != nullptr && !builder_->frozen()) between_status = builder_->Take(&encoder);
  if (!between_status.ok()) builder_.reset();
  if (status.ok() && between_status.ok() && between) between_status = between();
  EncodedSegment encoded;
  if (status.ok()) {
    auto written = encoder.Write(SpoolPath(header.sequence));
    status = written.status();
    if (status.ok()) encoded = std::move(*written);
  }
  if (status.ok()) {
    status = Save(table_.Changed());
    if (!status.ok()) (void)RemoveFile(encoded.path);
  }
  if (!status.ok()) {
    table_.Rollback();
    state_ = before;
    source_->SetPosition(state_.wal);
    builder_.reset();  // it may be frozen at a state that is taken back
    return status;
  }
  table_.Commit();
  source_->Release(*batch);
  if (batch->whole) {
    captured_ticket_ = ticket;
    capture_due_ = false;
  }
  control_->bytes_raw.fetch_add(batch->raw_bytes());
  if (batch->end_changes_known) control_->captured_changes.store(batch->end_changes);
  const uint64_t end = batch->end.Packed();
  if (control_->committed.load() == end) {
    control_->captured_commit.store(end);
  } else if (batch->whole) {
    control_->captured_commit.store(committed);
  }
  control_->spool_bytes.fetch_add(encoded.size);
  Pending pending;
  pending.first_commit = batch->commits.front().time;
  pending.encoded = std::move(encoded);
  queue_.push_back(std::move(pending));
  PublishPosition();
  return between_status;
}

// Compresses after the view: a WAL that is written without a pause grows for as long as it lasts.
Status Engine::CaptureInView(const std::function<Status(const WalPosition& view)>& body) {
  REPLICA_TRY(source_->BeginView());
  bool open = true;
  const WalPosition view = source_->view_position();
  Status status = Capture(&view, [&]() -> Status {
    Status done = source_->AtView() ? body(view) : NotAtView();
    source_->EndView();
    open = false;
    return done;
  });
  if (open) source_->EndView();
  return status;
}

Status Engine::WithView(const std::function<Status()>& body) {
  REPLICA_TRY(source_->BeginView());
  Status status = body();
  source_->EndView();
  return status;
}

// Four long readers can hold every read mark, so that a view is older than what is captured.
Status Engine::NotAtView() const {
  return {Code::kUnavailable, place_.database + ": readers hold every read mark; a snapshot or verify waits for them"};
}

bool Engine::SnapshotDue() const {
  if (snapshot_ || builder_ || state_.snapshot_txid == state_.txid || snapshot_taken_txid_ == state_.txid) return false;
  if (clock_.SteadyMicros() < snapshot_not_before_) return false;
  if (state_.snapshot_txid == 0) return true;
  if (queue_.size() > 1 || Delayed()) return false;  // catching up comes first
  return state_.log_bytes > std::max(state_.snapshot_bytes, kLeastLogForSnapshot) ||
         clock_.WallMicros() - state_.snapshot_time > options_.snapshot_interval;
}

// One slice of the work on a snapshot, begun when one is due or asked for.
Status Engine::SnapshotStep() {
  const uint32_t wanted = control_->snapshot_wanted.load();
  if (snapshot_) return Ok();  // one is on its way; the next request is met after it
  if (builder_ == nullptr) {
    if (wanted == control_->snapshot_done.load() && !SnapshotDue()) return Ok();
    REPLICA_TRY(Capture(nullptr));
    if (needs_resync_) return Ok();
    snapshot_ticket_ = wanted;
    // A name of its own: a PUT that an earlier leader left behind may still open its file.
    const std::string path = place_.folder + "/spool/snapshot-" + Hex16(RandomNumber());
    REPLICA_ASSIGN(builder_, SnapshotBuilder::Create(source_, path, state_.page_size, nullptr));
    snapshot_begun_ = clock_.SteadyMicros();
  }
  if (!builder_->frozen()) {
    REPLICA_ASSIGN(bool round_over, builder_->CopySlice(table_));
    if (!round_over) return Ok();
    REPLICA_TRY(Capture(nullptr));
    if (needs_resync_ || (builder_->Differing(table_) != 0 && !builder_->NeedsView())) return Ok();
    return FreezeSnapshot();
  }
  REPLICA_ASSIGN(bool done, builder_->EncodeSlice());
  if (!done) return Ok();
  REPLICA_ASSIGN(EncodedSegment encoded, builder_->Finish());
  builder_.reset();
  if (encoded.size > kLargestPut) {
    (void)RemoveFile(encoded.path);
    snapshot_not_before_ = clock_.SteadyMicros() + kSnapshotPause;
    return {Code::kTooLarge, place_.database + ": the snapshot is larger than the 5 GiB that one PUT may have"};
  }
  events_.Add("snapshot", "TXID " + std::to_string(encoded.segment.trailer.max_txid) + ", " +
                              std::to_string(encoded.size) + " bytes");
  encoded.segment.versions = {};  // nothing needs them any more
  encoded.segment.blocks = {};
  snapshot_ = std::move(encoded);
  return Ok();
}

Status Engine::FreezeSnapshot() {
  auto freeze = [&](const WalPosition& at) -> Status {
    SegmentHeader header = Header();
    header.sequence = state_.sequence;
    header.min_txid = state_.txid;
    header.kind = SegmentKind::kSnapshot;
    header.flags = kSegmentFolded | kSegmentPageHashes;
    SegmentTrailer trailer;
    trailer.max_txid = state_.txid;
    trailer.created = clock_.WallMicros();
    trailer.wal = at;
    trailer.checksum_before = trailer.checksum_after = table_.checksum();
    trailer.pages_before = trailer.pages_after = table_.pages();
    // A later snapshot of the same TXID does not make it any later.
    const int64_t time = state_.time != 0 ? state_.time : trailer.created;
    return builder_->Freeze(table_, header, trailer, time, options_.encode.level);
  };
  Status status;
  if (builder_->Differing(table_) == 0) {
    status = freeze(source_->position());
  } else {
    status = CaptureInView([&](const WalPosition& view) -> Status {
      if (source_->view_pages() == table_.pages()) return freeze(view);
      return {Code::kCorrupt, "the database has another size than its commits lead to"};
    });
  }
  if (status.code() == Code::kCorrupt) {
    LoseTrack(status.message());
    return Ok();
  }
  if (!status.ok() || needs_resync_) return status;
  snapshot_log_bytes_ = state_.log_bytes;
  for (const Pending& pending : queue_) snapshot_log_bytes_ += pending.encoded.size;
  return Ok();
}

void Engine::LoseTrack(const std::string& why) {
  control_->active.store(0);
  if (!needs_resync_) events_.Add("resync", "needed: " + why);
  needs_resync_ = true;
  // The next leader must know it too. (With a full disk it might not; then most likely the position is gone as well.)
  state_.wal = {};
  state_.stamp = {};
  (void)Save({});
  resync_reason_ = why;
  builder_.reset();
  comparison_.reset();
  scan_.reset();
  source_->LetGo();
}

void Engine::CheckBound() {
  const uint64_t limit = SpoolLimit();
  control_->spool_limit.store(limit);
  const uint64_t held = control_->spool_bytes.load() + control_->journal_total.load();
  if (held > limit && queue_.size() > 1)
    DropSpool("the spool holds " + std::to_string(held) + " bytes, over its bound of " + std::to_string(limit));
}

// Gives up the segments that wait behind the one in flight. Their pages count as unknown from then on, so a resync
// sends them as they are by then.
void Engine::DropSpool(const std::string& why) {
  const size_t keep = log_in_flight_ ? 1 : 0;
  if (queue_.size() <= keep) return;
  events_.Add("dropped", std::to_string(queue_.size() - keep) + " captured segments: " + why +
                             ". The pages they hold are sent again when the store answers");
  const SegmentTrailer& first = queue_[keep].encoded.segment.trailer;
  const uint64_t first_txid = queue_[keep].encoded.segment.header.min_txid;
  uint32_t least = first.pages_before;
  for (size_t i = keep; i < queue_.size(); i++)
    for (const CommitEntry& c : queue_[i].encoded.segment.commits) least = std::min(least, c.pages);
  table_.Resize(least);
  table_.Resize(first.pages_before);
  for (uint32_t page = least + 1; page <= table_.pages(); page++) table_.Set(page, PageTable::kUnknown);
  for (size_t i = keep; i < queue_.size(); i++)
    for (const PageVersion& v : queue_[i].encoded.segment.versions) table_.Set(v.page, PageTable::kUnknown);
  state_.txid = first_txid - 1;
  state_.sequence -= queue_.size() - keep;
  state_.checksum = first.checksum_before;
  state_.time = 0;
  state_.partial = true;
  state_.wal = {};
  if (snapshot_ && !snapshot_in_flight_ && snapshot_->segment.trailer.max_txid > state_.txid) {
    (void)RemoveFile(snapshot_->path);
    snapshot_.reset();
  }
  // Saved whole and first: a crash in between must not leave hashes that look known.
  Status status = state_file_.SaveAll(&state_, table_);
  if (!status.ok()) SetError(status);
  while (queue_.size() > keep) {
    control_->spool_bytes.fetch_sub(queue_.back().encoded.size);
    (void)RemoveFile(queue_.back().encoded.path);
    queue_.pop_back();
  }
  (void)source_->ResetJournal(true);
  LoseTrack(why);
  PublishPosition();
}

}  // namespace replica

#include "uploader/engine.h"

#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/fs.h"
#include "base/futex.h"

namespace replica {
namespace {

constexpr int64_t kFirstBackoff = 100000;       // µs
constexpr int64_t kLongestBackoff = 30000000;   // µs
constexpr uint64_t kLeastSpool = 256ULL << 20;  // bytes
constexpr uint64_t kLeastLogForSnapshot = 1 << 20;
constexpr uint64_t kLargestPut = 5ULL << 30;  // S3's limit for one PUT
// A snapshot's copy is frozen in a read view when so few of its pages are left, or after so many rounds.
constexpr uint32_t kFewPages = 512;
constexpr int kMostRounds = 8;
constexpr uint32_t kWakeFrames = 256;  // frames a gathering leader lets commits write before they wake it

// Errors that only a person can mend: tried again, but slowly.
bool NeedsPerson(const Status& status) {
  switch (status.code()) {
    case Code::kPermission:
    case Code::kInvalidArgument:
    case Code::kUnsupported:
    case Code::kConflict:
    case Code::kCorrupt:
      return true;
    default:
      return false;
  }
}

}  // namespace

// Where PUTs report, on the store's thread. Outlives the engine for those that end after it.
struct Engine::Mailbox {
  struct Mail {
    bool snapshot;
    Status status;
  };

  ControlBlock* control;
  std::shared_ptr<void> keep_alive;
  Mutex mutex;
  std::vector<Mail> mail GUARDED_BY(mutex);

  void Put(bool snapshot, Status status) EXCLUDES(mutex) {
    {
      MutexLock lock(mutex);
      mail.push_back({snapshot, std::move(status)});
    }
    WakeLeader(control);
  }

  std::vector<Mail> Take() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    return std::exchange(mail, {});
  }

  bool Empty() EXCLUDES(mutex) {
    MutexLock lock(mutex);
    return mail.empty();
  }
};

Engine::Engine(Source* source, std::shared_ptr<Store> store, ControlBlock* control, std::shared_ptr<void> keep_alive,
               Place place, EngineOptions options, const Clock& clock)
    : source_(source),
      store_(std::move(store)),
      control_(control),
      place_(std::move(place)),
      options_(options),
      clock_(clock),
      events_(place_.folder, clock),
      state_file_(place_.folder),
      mailbox_(std::make_shared<Mailbox>()) {
  mailbox_->control = control;
  mailbox_->keep_alive = std::move(keep_alive);
}

Engine::~Engine() = default;

void Engine::Stop(int64_t flush_micros) {
  stop_at_.store(clock_.SteadyMicros() + std::max<int64_t>(flush_micros, 1));
  WakeLeader(control_);
}

void Engine::Run() {
  control_->leader_pid.store(::getpid());
  StoreText(&control_->url, store_->url());
  control_->state.store(static_cast<uint32_t>(ReplicaState::kSnapshot));
  control_->wake_at.store(kWakeNever);
  events_.Add("leader", "process " + std::to_string(::getpid()) + " uploads to " + store_->url());
  for (;;) {
    TakeMail();
    if (Stopping() && (Drained() || clock_.SteadyMicros() >= stop_at_.load())) break;
    if (attached_) {
      Status status = Stream();
      if (!status.ok()) {
        SetError(status);
        Backoff(status, &capture_attempts_, &attempt_at_);
      } else {
        capture_attempts_ = 0;
      }
    } else if (clock_.SteadyMicros() >= attempt_at_) {
      Status status = Attach();
      if (status.ok()) {
        ClearError();
        attach_attempts_ = 0;
      } else {
        SetError(status);
        Backoff(status, &attach_attempts_, &attempt_at_);
      }
    }
    SetState();
    Sleep();
  }
  // Whatever the store does, the commits are in the spool before the WAL goes.
  if (attached_ && !fenced_ && !needs_resync_) {
    Status status = Capture(nullptr);
    if (!status.ok()) SetError(status);
  }
  control_->leader_pid.store(0);
  control_->state.store(static_cast<uint32_t>(fenced_ ? ReplicaState::kFenced : ReplicaState::kOff));
  NotifyWaiters(control_);
}

void Engine::StampCleanClose() {
  if (!attached_ || fenced_ || needs_resync_ || control_->overflow.load() != 0 || control_->journal_total.load() != 0)
    return;
  // The close passed the restart gate, which wrote down where the WAL ended.
  const uint64_t end = uint64_t{LoadBig32(state_.wal.salts.data())} << 32 | state_.wal.frame;
  if (control_->gate_position.load() != end) return;
  auto wal = FileSize(place_.database + "-wal");
  if (wal.ok() && *wal != 0) return;  // other connections go on
  state_.stamp = StampOf(place_.database);
  (void)Save({});  // without it the next start scans
}

SegmentHeader Engine::Header() const {
  SegmentHeader header;
  header.page_size = state_.page_size;
  header.database = state_.database;
  header.generation = state_.generation;
  header.writer = state_.writer;
  return header;
}

std::string Engine::SpoolPath(uint64_t sequence) const {
  return place_.folder + "/spool/log-" + Hex16(sequence);
}

Status Engine::Save(const std::vector<uint32_t>& changed) {
  return state_file_.Save(&state_, table_, changed);
}

// --- streaming

Status Engine::Stream() {
  if (fenced_) return Ok();
  const int64_t now = clock_.SteadyMicros();
  if (control_->overflow.exchange(0) != 0)
    LoseTrack("the spool's bound was reached, or the disk was full, when the WAL restarted");
  if (now < attempt_at_) {  // after a local error: give the disk a moment, but go on sending
    Send();
    return Ok();
  }
  CheckBound();
  if (needs_resync_) {
    // The difference is taken against what the replica is known to hold.
    if (queue_.empty() && !log_in_flight_) REPLICA_TRY(Resync());
  } else {
    REPLICA_TRY(SnapshotStep());
    if (control_->mark_wanted.load() != control_->mark_done.load()) REPLICA_TRY(Mark());
    const bool urgent = control_->sync_wanted.load() != captured_ticket_ || Stopping();
    const uint64_t backlog = source_->Backlog();
    if (backlog != 0 || urgent) {
      const bool idle = queue_.empty() && !log_in_flight_;
      const bool full = backlog >= options_.encode.fold_above;
      if (idle ? urgent || full || now >= next_turn_ : full && attempts_ > 0)
        REPLICA_TRY(Capture(nullptr));
      else
        REPLICA_TRY(source_->Relieve());
    }
  }
  Send();
  return Ok();
}

Status Engine::Capture(const WalPosition* until, const std::function<Status()>& between) {
  // Read before the frames: commits that a request follows are in the WAL by now.
  const uint64_t ticket = control_->sync_wanted.load(std::memory_order_seq_cst);
  auto batch = source_->Collect(options_.encode.fold_above, until);
  if (!batch.ok()) {
    if (batch.status().code() != Code::kConflict) return batch.status();
    LoseTrack(batch.status().message());
    return Ok();
  }
  if (batch->empty()) {
    captured_ticket_ = ticket;
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
    state_.wal = batch->end;
    state_.stamp = {};
  }
  // What `between` meets is reported after the batch is safe.
  Status between_status;
  if (status.ok() && between) between_status = between();
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
    source_->SetPosition(state_.wal, false);
    builder_.reset();  // it may be frozen at a state that is taken back
    return status;
  }
  table_.Commit();
  source_->Release(*batch);
  captured_ticket_ = ticket;
  control_->bytes_raw.fetch_add(batch->raw_bytes());
  if (batch->end_changes_known) control_->captured_changes.store(batch->end_changes);
  control_->spool_bytes.fetch_add(encoded.size);
  Pending pending;
  pending.first_commit = batch->commits.front().time;
  pending.encoded = std::move(encoded);
  queue_.push_back(std::move(pending));
  PublishPosition();
  return between_status;
}

Status Engine::WithView(const std::function<Status()>& body) {
  REPLICA_TRY(source_->BeginView());
  Status status = body();
  source_->EndView();
  return status;
}

Status Engine::Resync() {
  events_.Add("resync", "comparing every page: " + resync_reason_);
  const EngineState before = state_;
  SegmentHeader header = Header();
  header.sequence = state_.sequence + 1;
  header.min_txid = state_.txid + 1;
  if (source_->page_size() != state_.page_size) {
    events_.Add("resync", "the page size changed: a new generation begins");
    return NewGeneration();
  }
  const uint64_t ticket = control_->sync_wanted.load(std::memory_order_seq_cst);
  EncodedSegment encoded;
  Status status = WithView([&]() -> Status {
    table_.Begin();
    auto result = EncodeDifference(source_, header, state_.checksum, clock_.WallMicros(), options_.encode,
                                   SpoolPath(header.sequence), &table_);
    Status s = result.status();
    if (s.ok()) {
      encoded = std::move(*result);
      if (encoded.size != 0) {
        state_.txid++;
        state_.sequence++;
      }
      state_.checksum = table_.checksum();
      state_.wal = source_->view_position();
      state_.partial = false;
      state_.stamp = {};
      s = Save(table_.Changed());
    }
    if (!s.ok()) {
      table_.Rollback();
      state_ = before;
      if (encoded.size != 0) (void)RemoveFile(encoded.path);
      return s;
    }
    table_.Commit();
    source_->SetPosition(state_.wal, false);
    control_->captured_changes.store(source_->view_changes());
    s = source_->ResetJournal(true);
    if (s.ok()) Activate();
    return s;
  });
  REPLICA_TRY(status);
  needs_resync_ = false;
  captured_ticket_ = ticket;
  if (encoded.size == 0) {
    events_.Add("resync", "no page differs: the history goes on");
  } else {
    events_.Add("resync", std::to_string(encoded.segment.trailer.version_count) + " pages differ; they are TXID " +
                              std::to_string(state_.txid) + ". Commits in between cannot be restored one by one");
    control_->spool_bytes.fetch_add(encoded.size);
    Pending pending;
    pending.first_commit = encoded.segment.commits.front().time;
    pending.encoded = std::move(encoded);
    queue_.push_back(std::move(pending));
  }
  Acknowledge();
  return Ok();
}

// Four long readers can hold every read mark, so that a view is older than what is captured.
Status Engine::NotAtView() const {
  return {Code::kUnavailable, place_.database + ": readers hold every read mark; a snapshot or verify waits for them"};
}

bool Engine::SnapshotDue() const {
  if (snapshot_ || builder_ || state_.snapshot_txid == state_.txid) return false;
  if (state_.snapshot_txid == 0) return true;
  if (queue_.size() > 1 || attempts_ > 0) return false;  // catching up comes first
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
    if (state_.snapshot_txid == state_.txid) {
      control_->snapshot_done.store(wanted);
      NotifyWaiters(control_);
      return Ok();
    }
    REPLICA_ASSIGN(builder_, SnapshotBuilder::Create(source_, place_.folder + "/spool/snapshot", state_.page_size));
  }
  if (!builder_->frozen()) {
    REPLICA_ASSIGN(bool round_over, builder_->CopySlice(table_));
    if (!round_over) return Ok();
    REPLICA_TRY(Capture(nullptr));
    if (needs_resync_ || (builder_->Differing(table_) > kFewPages && builder_->rounds() < kMostRounds)) return Ok();
    return FreezeSnapshot();
  }
  REPLICA_ASSIGN(bool done, builder_->EncodeSlice());
  if (!done) return Ok();
  REPLICA_ASSIGN(EncodedSegment encoded, builder_->Finish());
  builder_.reset();
  if (encoded.size > kLargestPut) {
    (void)RemoveFile(encoded.path);
    return {Code::kUnsupported, place_.database + ": the snapshot is larger than the 5 GiB that one PUT may have"};
  }
  events_.Add("snapshot", "TXID " + std::to_string(encoded.segment.trailer.max_txid) + ", " +
                              std::to_string(encoded.size) + " bytes");
  encoded.segment.versions = {};  // nothing needs them any more
  encoded.segment.blocks = {};
  snapshot_ = std::move(encoded);
  return Ok();
}

// The view lasts for as long as hashing the last commits and copying the last pages takes; they are compressed after
// it.
Status Engine::FreezeSnapshot() {
  REPLICA_TRY(source_->BeginView());
  bool open = true;
  const WalPosition view = source_->view_position();
  auto freeze = [&]() -> Status {
    Status status;
    if (!source_->AtView()) status = NotAtView();
    if (status.ok()) {
      SegmentHeader header = Header();
      header.sequence = state_.sequence;
      header.min_txid = state_.txid;
      SegmentTrailer trailer;
      trailer.max_txid = state_.txid;
      trailer.created = clock_.WallMicros();
      trailer.wal = view;
      status = builder_->Freeze(table_, header, trailer, options_.encode.level);
    }
    source_->EndView();
    open = false;
    return status;
  };
  Status status = Capture(&view, freeze);
  if (open) source_->EndView();
  if (status.code() == Code::kCorrupt) {
    LoseTrack(status.message());
    return Ok();
  }
  if (!status.ok() || needs_resync_) return status;
  snapshot_log_bytes_ = state_.log_bytes;
  for (const Pending& pending : queue_) snapshot_log_bytes_ += pending.encoded.size;
  return Ok();
}

// Ends a segment at a state of the database that is read back in full: the independent half of a verify.
Status Engine::Mark() {
  const uint32_t ticket = control_->mark_wanted.load();
  return WithView([&]() -> Status {
    const WalPosition view = source_->view_position();
    REPLICA_TRY(Capture(&view));
    if (needs_resync_) return Ok();
    if (!source_->AtView()) return NotAtView();
    REPLICA_ASSIGN(PageTable scanned, ScanView(source_));
    control_->mark_txid.store(state_.txid);
    control_->mark_checksum.store(scanned.checksum());
    control_->mark_expected.store(table_.checksum());
    control_->mark_done.store(ticket, std::memory_order_release);
    NotifyWaiters(control_);
    if (scanned.checksum() != table_.checksum())
      LoseTrack("a verify read pages that differ from what the commits lead to");
    return Ok();
  });
}

void Engine::LoseTrack(const std::string& why) {
  control_->active.store(0);
  if (!needs_resync_) events_.Add("resync", "needed: " + why);
  needs_resync_ = true;
  resync_reason_ = why;
  builder_.reset();
}

void Engine::CheckBound() {
  const uint64_t limit = options_.spool_limit != 0 ? options_.spool_limit
                                                   : std::max(kLeastSpool, uint64_t{table_.pages()} * state_.page_size);
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

// --- sending

void Engine::Send() {
  const int64_t now = clock_.SteadyMicros();
  if (!queue_.empty() && !log_in_flight_ && now >= retry_at_) {
    const EncodedSegment& e = queue_.front().encoded;
    log_in_flight_ = true;
    next_turn_ = now + options_.sync_interval;
    control_->puts.fetch_add(1);
    store_->PutAsync(LogKey(state_.generation, e.segment.header.sequence),
                     ObjectBody::FromFile(e.path, e.size, e.sha256), options_.fencing,
                     [mailbox = mailbox_](Status status) { mailbox->Put(false, std::move(status)); });
  }
  if (snapshot_ && !snapshot_in_flight_ && now >= snapshot_retry_at_) {
    snapshot_in_flight_ = true;
    control_->puts.fetch_add(1);
    store_->PutAsync(SnapshotKey(state_.generation, snapshot_->segment.trailer.max_txid),
                     ObjectBody::FromFile(snapshot_->path, snapshot_->size, snapshot_->sha256), false,
                     [mailbox = mailbox_](Status status) { mailbox->Put(true, std::move(status)); });
  }
}

void Engine::TakeMail() {
  for (Mailbox::Mail& mail : mailbox_->Take()) {
    if (mail.snapshot) {
      SnapshotDone(mail.status);
    } else {
      LogDone(mail.status);
    }
  }
}

void Engine::LogDone(const Status& result) {
  log_in_flight_ = false;
  if (queue_.empty()) return;
  Status status = result;
  if (status.code() == Code::kExists) {
    bool ours = false;
    bool own_writer = false;
    status = LookAtRival(&ours, &own_writer);
    if (status.ok() && !ours) {
      const std::string key =
          ObjectUrl(*store_, LogKey(state_.generation, queue_.front().encoded.segment.header.sequence));
      if (own_writer) {
        // This folder wrote it and forgot (a power loss took spool and state): the replica is ahead of us.
        events_.Add("resync", key + " was written by this database before; reading the replica");
        state_.restored = true;
        (void)Save({});
        attached_ = false;
        control_->active.store(0);
        return;
      }
      fenced_ = state_.fenced = true;
      (void)Save({});
      control_->active.store(0);
      events_.Add("fenced", key + " was written by another writer");
      SetError(
          Status(Code::kConflict,
                 key + " was written by another process or machine with this database's history; this one stopped "
                       "uploading. If this database is the one to keep, attach it with the option \"takeover\": true"));
      SetState();
      return;
    }
  }
  if (!status.ok()) {
    control_->put_errors.fetch_add(1);
    if (status.code() == Code::kNotFound) {
      // Not the store's: our own spool file is gone.
      DropSpool("a spooled segment is gone: " + status.message());
      return;
    }
    SetError(status);
    Backoff(status, &attempts_, &retry_at_);
    return;
  }
  const EncodedSegment& e = queue_.front().encoded;
  state_.acknowledged_txid = e.segment.trailer.max_txid;
  state_.acknowledged_sequence = e.segment.header.sequence;
  state_.log_bytes += e.size;
  control_->bytes_stored.fetch_add(e.size);
  control_->spool_bytes.fetch_sub(e.size);
  (void)Save({});  // a lost note costs one PUT that finds the same object
  (void)RemoveFile(e.path);
  queue_.pop_front();
  attempts_ = 0;
  retry_at_ = 0;
  ClearError();
  Acknowledge();
}

// The object that stands where ours should go. `ours`: it is the same segment (the answer to an earlier try was lost).
Status Engine::LookAtRival(bool* ours, bool* own_writer) {
  const EncodedSegment& e = queue_.front().encoded;
  const std::string key = LogKey(state_.generation, e.segment.header.sequence);
  REPLICA_ASSIGN(uint64_t size, store_->Size(key));
  REPLICA_ASSIGN(Segment stored, ReadSegmentEnds(store_.get(), key, size));
  *ours = size == e.size && stored.trailer.sha256 == e.segment.trailer.sha256;
  *own_writer = stored.header.writer == state_.writer;
  return Ok();
}

void Engine::SnapshotDone(const Status& result) {
  snapshot_in_flight_ = false;
  if (!snapshot_) return;
  if (!result.ok()) {
    control_->put_errors.fetch_add(1);
    if (result.code() == Code::kNotFound) {
      snapshot_.reset();  // the spool file is gone: a new one is made
      return;
    }
    SetError(result);
    Backoff(result, &snapshot_attempts_, &snapshot_retry_at_);
    return;
  }
  state_.snapshot_txid = snapshot_->segment.trailer.max_txid;
  state_.snapshot_bytes = snapshot_->size;
  state_.snapshot_time = clock_.WallMicros();
  state_.log_bytes -= std::min(state_.log_bytes, snapshot_log_bytes_);
  control_->bytes_stored.fetch_add(snapshot_->size);
  (void)RemoveFile(snapshot_->path);
  snapshot_.reset();
  (void)Save({});
  snapshot_attempts_ = 0;
  control_->snapshot_done.store(snapshot_ticket_);
  ClearError();
  Acknowledge();
}

// Publishes what is restorable now. Without a snapshot nothing is, however much of the log is there.
void Engine::Acknowledge() {
  if (state_.snapshot_txid != 0) {
    control_->acknowledged_txid.store(std::max(state_.acknowledged_txid, state_.snapshot_txid));
    control_->acknowledged_time.store(clock_.WallMicros());
    control_->sequence.store(state_.acknowledged_sequence);
    if (queue_.empty() && !log_in_flight_ && !needs_resync_)
      control_->sync_done.store(captured_ticket_, std::memory_order_release);
  }
  PublishPosition();
  SetState();
  NotifyWaiters(control_);
}

void Engine::PublishPosition() {
  control_->captured_checksum.store(state_.checksum);
  control_->captured_txid.store(state_.txid, std::memory_order_release);
  control_->unacknowledged_since.store(queue_.empty() ? 0 : queue_.front().first_commit);
  uint64_t words[2];
  std::memcpy(words, state_.generation.data(), 16);
  control_->generation[0].store(words[0]);
  control_->generation[1].store(words[1]);
  std::memcpy(words, state_.database.data(), 16);
  control_->database[0].store(words[0]);
  control_->database[1].store(words[1]);
}

void Engine::Backoff(const Status& status, int* attempts, int64_t* retry_at) {
  thread_local std::mt19937_64 random(std::random_device{}());
  const int shift = std::min(*attempts, 9);
  ++*attempts;
  int64_t most = std::min(kFirstBackoff << shift, kLongestBackoff);
  if (NeedsPerson(status)) most = std::max<int64_t>(most, 5000000);
  // Full jitter, so that many databases do not come back at the same moment.
  std::uniform_int_distribution<int64_t> wait(most / 10, most);
  *retry_at = clock_.SteadyMicros() + wait(random);
}

// --- waiting and telling

bool Engine::Drained() const {
  if (fenced_ || (!error_.ok() && NeedsPerson(error_))) return true;  // more time would not help
  if (!attached_) return false;
  return queue_.empty() && !log_in_flight_ && !snapshot_ && (!builder_ || state_.snapshot_txid != 0) &&
         !needs_resync_ && state_.snapshot_txid != 0 && source_->Backlog() == 0;
}

void Engine::Sleep() {
  const uint32_t word = control_->wake_word.load(std::memory_order_seq_cst);
  const int64_t now = clock_.SteadyMicros();
  int64_t wait = options_.watch_interval;
  auto until = [&](int64_t moment) { wait = std::min(wait, std::max<int64_t>(moment - now, 0)); };
  const bool streaming = attached_ && !fenced_;
  const bool resting = attempt_at_ > now;  // after a local error
  const uint64_t backlog = streaming && !needs_resync_ ? source_->Backlog() : 0;
  const bool idle = backlog == 0 && queue_.empty() && !log_in_flight_;
  if (!attached_) until(attempt_at_);
  if (Stopping()) until(stop_at_.load());
  if (streaming) {
    if (!queue_.empty() && !log_in_flight_) until(retry_at_);
    if (snapshot_ && !snapshot_in_flight_) until(snapshot_retry_at_);
    if (resting) {
      until(attempt_at_);
    } else if (queue_.empty() && !log_in_flight_ && (needs_resync_ || backlog != 0)) {
      until(needs_resync_ ? now : next_turn_);
    }
  }
  if (streaming && builder_ && !resting) return;
  if (wait <= 0 || (Stopping() && Drained())) return;
  // Idle: any commit wakes. Gathering: the timer or the PUT's end will, so commits need not, unless the WAL fills up.
  uint64_t wake_at = kWakeAtAnyCommit;
  const uint64_t committed = control_->committed.load(std::memory_order_seq_cst);
  if (!streaming || needs_resync_ || resting) {
    wake_at = kWakeNever;
  } else if (!idle) {
    wake_at = committed + kWakeFrames;
  }
  control_->wake_at.store(wake_at, std::memory_order_seq_cst);
  // The other half of Dekker (Database::Tap): what was committed or asked before wake_at was visible is looked for now.
  const bool commit = idle && streaming && !needs_resync_ && !resting &&
                      (control_->committed.load(std::memory_order_seq_cst) != committed || source_->Backlog() != 0);
  const bool asked = streaming && !resting && !needs_resync_ &&
                     ((control_->sync_wanted.load() != captured_ticket_ && queue_.empty() && !log_in_flight_) ||
                      (control_->snapshot_wanted.load() != control_->snapshot_done.load() && !snapshot_) ||
                      SnapshotDue() || control_->mark_wanted.load() != control_->mark_done.load());
  if (!commit && !asked && mailbox_->Empty()) FutexWait(&control_->wake_word, word, wait);
  control_->wake_at.store(kWakeNever, std::memory_order_seq_cst);
}

void Engine::SetError(const Status& status) {
  if (error_.code() == status.code() && error_.message() == status.message()) return;
  if (error_.ok()) control_->error_since.store(clock_.WallMicros());
  error_ = status;
  StoreText(&control_->last_error, status.message());
  events_.Add("error", status.message());
  SetState();
  NotifyWaiters(control_);
}

void Engine::ClearError() {
  if (error_.ok()) return;
  error_ = Ok();
  control_->error_since.store(0);
  events_.Add("recovered", "the store answers again");
}

void Engine::SetState() {
  ReplicaState state = ReplicaState::kStreaming;
  if (fenced_) {
    state = ReplicaState::kFenced;
  } else if (!error_.ok() && NeedsPerson(error_)) {
    state = ReplicaState::kError;
  } else if (!attached_) {
    state = error_.ok() ? ReplicaState::kSnapshot : ReplicaState::kBehind;
  } else if (needs_resync_) {
    state = ReplicaState::kResync;
  } else if (!error_.ok()) {
    state = ReplicaState::kBehind;
  } else if (state_.snapshot_txid == 0) {
    state = ReplicaState::kSnapshot;
  }
  control_->state.store(static_cast<uint32_t>(state));
}

}  // namespace replica

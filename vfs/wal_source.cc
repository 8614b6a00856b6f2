#include "vfs/wal_source.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "uploader/page_table.h"
#include "uploader/segment_reader.h"
#include "vfs/wal_reading.h"

namespace replica {
namespace {

constexpr int kLookAgain = 20;

}  // namespace

Status WalSource::Lost(const std::string& why) const {
  return {Code::kConflict, database_->path() + ": commits were written around libreplica (" + why +
                               "); the difference will be found and sent"};
}

WalSource::WalSource(std::shared_ptr<Database> database, std::unique_ptr<OwnConnection> connection)
    : database_(std::move(database)),
      connection_(std::move(connection)),
      page_size_(connection_->page_size()),
      life_(database_->Life()),
      view_(connection_.get()) {}

Result<std::unique_ptr<WalSource>> WalSource::Open(const std::shared_ptr<Database>& database, bool guard) {
  REPLICA_ASSIGN(auto connection, OwnConnection::Open(database));
  std::unique_ptr<WalSource> source(new WalSource(database, std::move(connection)));
  if (guard) {
    REPLICA_ASSIGN(source->guard_, RestartGuard::Open(database));
  }
  return source;
}

void WalSource::LetGo() {
  if (guard_ != nullptr) guard_->Drop();
}

void WalSource::SetPosition(const WalPosition& position, const WalAnchor& anchor) {
  position_ = position;
  anchor_ = anchor;
  lost_ = false;
  base_frames_.clear();
  new_frames_.clear();
  new_frames_salts_ = position.salts;
  check_changes_ = false;
}

// Whether the WAL with these salts, the live one or that of a journal chunk, comes next after `at`. Salts do not tell:
// a connection that has not checkpointed yet draws new ones at random for the WAL it begins. SQLite's count of commits
// does.
WalSource::Succession WalSource::LeadsOn(const WalPosition& at, const WalSalts& salts, const Database::WalBegin& begin,
                                         bool live) const {
  if (anchor_.life != 0 && begin.life == anchor_.life && begin.gate == anchor_.gate)
    return {true, anchor_.changes, begin.frame, begin.changes};
  // The file is as its last close left it, so the first WAL of this life comes next, where SQLite counts from 0; or the
  // live one, when a crash has begun another life of the wal-index since a tap saw it begin.
  const bool closed = (anchor_.life != 0 && anchor_ == FirstAnchor()) ||
                      (closed_gate_ != 0 && closed_gate_ == PackPosition(at.salts, at.frame));
  if (closed && begin.gate == 0 && ((life_ != 0 && begin.life == life_) || (live && begin.frame != 0)))
    return {true, 0, begin.frame, begin.changes};
  if (begin.gate != 0 && begin.gate == PackPosition(at.salts, at.frame))
    return {true, begin.gate_changes, begin.frame, begin.changes};
  // Several lives may have passed since a leader looked.
  if (begin.gate == 0 && begin.closed != 0 && begin.closed == PackPosition(at.salts, at.frame))
    return {true, 0, begin.frame, begin.changes};
  Succession by_guard;
  by_guard.proven = guard_ != nullptr && guard_->Follows(at, salts, &by_guard.start);
  return by_guard;
}

bool WalSource::NothingCommitted() const {
  WalIndexHeader header;
  return connection_->Index(&header) && header.max_frame == 0 && header.changes == 0;
}

bool WalSource::ReadIndex(WalIndexHeader* header) {
  if (connection_->Index(header)) return true;
  // A process was killed while it changed it: the next read transaction rebuilds it, if need be one of ours.
  ReadState ignored;
  if (connection_->BeginRead(&ignored).ok()) connection_->EndRead();
  return connection_->Index(header);
}

Result<bool> WalSource::InLiveWal() {
  WalIndexHeader header;
  if (!ReadIndex(&header)) return Status(Code::kUnavailable, database_->path() + ": the wal-index is being rebuilt");
  FrameHeader frame;
  if (position_.frame == 0 || header.wal_salts() != position_.salts || header.max_frame < position_.frame) return false;
  if (!connection_->ReadFrameHeader(position_.frame, &frame).ok()) return false;
  return frame.salts == position_.salts && frame.checksum[0] == position_.checksum[0] &&
         frame.checksum[1] == position_.checksum[1];
}

Result<bool> WalSource::Reachable() {
  WalIndexHeader header;
  if (!ReadIndex(&header)) return Status(Code::kUnavailable, database_->path() + ": the wal-index is being rebuilt");
  if (position_.salts != WalSalts{} && header.wal_salts() == position_.salts) {
    if (position_.frame == 0) return true;
    FrameHeader frame;
    if (header.max_frame < position_.frame) return false;
    if (!connection_->ReadFrameHeader(position_.frame, &frame).ok()) return false;
    return BelongsTo(frame, position_.salts) && frame.checksum[0] == position_.checksum[0] &&
           frame.checksum[1] == position_.checksum[1];
  }
  const Database::WalBegin begin = database_->BeginOf(header.wal_salts(), life_);
  if (const Succession next = LeadsOn(position_, header.wal_salts(), begin, true); next.proven) {
    // What it must be counted to is checked when it is read.
    if (header.max_frame != 0 ? header.max_frame >= next.frame : header.changes == next.start.value_or(header.changes))
      return true;
  }
  REPLICA_ASSIGN(auto journals, database_->RotateJournal());
  for (const std::string& path : journals) {
    auto bytes = FileBytes::Open(path);
    if (!bytes.ok()) return bytes.status();
    for (uint64_t at = 0; at + kJournalChunkSize <= (*bytes)->size();) {
      JournalChunk chunk;
      REPLICA_ASSIGN(std::string head, (*bytes)->Read(at, kJournalChunkSize));
      if (!DecodeChunk(head, &chunk)) break;
      if (chunk.first == 1 && LeadsOn(position_, chunk.salts, BeginOf(chunk), false).proven) return true;
      if (chunk.salts == position_.salts && chunk.first <= position_.frame + 1 &&
          chunk.first + chunk.count > position_.frame)
        return true;
      at += kJournalChunkSize + chunk.bytes();
    }
  }
  return false;
}

void WalSource::Observe() {
  WalIndexHeader header;
  if (!connection_->Index(&header)) return;
  ControlBlock* c = database_->control();
  const uint64_t end = PackPosition(header.wal_salts(), header.max_frame);
  const bool captured = end == position_.Packed();
  // What a tap has seen has its own time.
  const bool tapped = c->committed.load(std::memory_order_seq_cst) == end;
  if (captured) observed_.clear();
  if (captured || header.max_frame == 0) {
    c->observed_time.store(0);
    return;
  }
  if (observed_.size() >= kMaxObserved || observed_.count(end) != 0) return;
  const int64_t now = SystemClock().WallMicros();
  observed_[end] = now;
  if (tapped) return;
  c->observed_changes.store(header.changes);
  if (c->observed_time.load() == 0) c->observed_time.store(now);
}

uint64_t WalSource::Backlog() {
  WalIndexHeader header;
  if (!connection_->Index(&header)) return 0;
  const uint64_t frame_size = page_size_ + kFrameHeaderSize;
  const uint64_t journaled = database_->control()->journal_total.load();
  if (header.wal_salts() != position_.salts) return journaled + header.max_frame * frame_size;
  return header.max_frame > position_.frame ? (header.max_frame - position_.frame) * frame_size : 0;
}

bool WalSource::EnterWal(const WalSalts& salts, const Database::WalBegin& begin, bool live, Reading* r) {
  const Succession succession = LeadsOn(r->at, salts, begin, live);
  if (!succession.proven || !r->open.empty()) return false;
  start_changes_ = succession.start.value_or(0);
  check_changes_ = succession.start.has_value();
  check_frame_ = succession.frame;
  check_count_ = succession.changes;
  anchor_ = {};
  commits_seen_ = 0;
  commit_frames_ = 0;
  r->at = {};
  r->at.salts = salts;
  r->has_last_commit = false;
  base_frames_.clear();
  new_frames_.clear();
  new_frames_salts_ = salts;
  return true;
}

// Adds one frame; at the end of a commit, the commit.
Status WalSource::AddFrame(const FrameHeader& header, Batch::Frame frame, Reading* r) {
  anchor_ = {};
  r->at.frame++;
  r->at.checksum[0] = header.checksum[0];
  r->at.checksum[1] = header.checksum[1];
  new_frames_[header.page] = r->at.frame;
  r->open.push_back(frame);
  if (!header.commit()) return Ok();

  Batch& b = r->batch;
  commit_frames_++;
  bool repeat = false;
  // Without SQLITE_IOCAP_POWERSAFE_OVERWRITE SQLite fills the sector by repeating the commit frame (walFrames): the
  // repeats are no commits. Nor is a commit that changed nothing at all, which looks the same.
  if (r->open.size() == 1 && r->has_last_commit && !b.frames.empty() && r->last_commit.page == header.page &&
      r->last_commit.pages_after == header.pages_after) {
    b.frames.push_back(frame);
    REPLICA_ASSIGN(const uint8_t* one, b.Page(b.frames.size() - 2, &r->scratch[0]));
    REPLICA_ASSIGN(const uint8_t* two, b.Page(b.frames.size() - 1, &r->scratch[1]));
    repeat = std::memcmp(one, two, page_size_) == 0;
    b.frames.pop_back();
  }
  if (!repeat) {
    BatchCommit commit;
    commit.first = b.frames.size();
    commit.count = r->open.size();
    commit.pages = header.pages_after;
    auto time = r->times.find(PackPosition(r->at.salts, r->at.frame));
    commit.time = time != r->times.end() ? time->second : r->ObservedTime(r->at);
    r->last_time = std::max(r->last_time, commit.time);
    commit.time = r->last_time;
    b.commits.push_back(commit);
    b.frames.insert(b.frames.end(), r->open.begin(), r->open.end());
    commits_seen_++;
  }
  r->open.clear();
  r->last_commit = header;
  r->has_last_commit = true;
  b.end = r->at;
  b.end_changes_known = false;
  return r->at.frame == check_frame_ ? CheckChanges(check_count_) : Ok();
}

Status WalSource::ReadLive(const WalIndexHeader& header, Reading* r) {
  const uint64_t frame_size = page_size_ + kFrameHeaderSize;
  uint32_t last = header.max_frame;
  if (r->until != nullptr && r->until->SameWal(r->at)) last = std::min(last, r->until->frame);
  const uint32_t first = r->at.frame + 1;
  const uint64_t bytes = (last - first + 1) * frame_size;
  Batch& b = r->batch;
  const size_t start = b.memory.size();
  b.memory.resize(start + bytes);
  auto got = connection_->ReadWal(b.memory.data() + start, bytes, FrameOffset(first, page_size_));
  if (!got.ok()) return got.status();
  WalIndexHeader now;
  const bool same = connection_->Index(&now) && now.wal_salts() == r->at.salts;
  if (!same || *got != bytes) {
    b.memory.resize(start);
    if (same) return {Code::kIo, database_->wal_path() + " is shorter than its wal-index says"};
    return {Code::kUnavailable, "the WAL was restarted while it was read"};
  }
  // The first frame must go on from the last one that was read: a wal-index that was recovered to an earlier commit
  // lets frames be written anew. (No checksum to go on from: see BelongsTo.)
  if (r->at.frame != 0 && (r->at.checksum[0] | r->at.checksum[1]) != 0 && first <= last) {
    const auto* bytes_first = reinterpret_cast<const uint8_t*>(b.memory.data()) + start;
    const FrameHeader h = ParseFrameHeader(bytes_first);
    uint32_t sum[2];
    FrameChecksum(false, bytes_first, page_size_, r->at.checksum, sum);
    if (h.salts == r->at.salts && (sum[0] != h.checksum[0] || sum[1] != h.checksum[1])) {
      b.memory.resize(start);
      return Lost("frame " + std::to_string(first) + " of the WAL does not follow the one before");
    }
  }
  for (uint32_t i = first; i <= last; i++) {
    const size_t at = start + (i - first) * frame_size;
    const FrameHeader h = ParseFrameHeader(reinterpret_cast<const uint8_t*>(b.memory.data()) + at);
    if (!BelongsTo(h, r->at.salts))
      return {Code::kIo,
              database_->wal_path() + ": frame " + std::to_string(i) + " is not what the wal-index says it is"};
    Batch::Frame frame;
    frame.page = h.page;
    frame.offset = at + kFrameHeaderSize;
    REPLICA_TRY(AddFrame(h, frame, r));
  }
  if (last == header.max_frame && r->open.empty()) {
    b.end_changes = header.changes;
    b.end_changes_known = true;
    return CheckChanges(header.changes);
  }
  return Ok();
}

// Commits in this WAL so far against SQLite's own count: a difference means commits that a foreign process wrote behind
// the last gate, or another life of the wal-index.
Status WalSource::CheckChanges(uint32_t changes) {
  if (!check_changes_) return Ok();
  check_changes_ = false;
  const uint32_t counted = changes - start_changes_;
  if (counted >= commits_seen_ && counted <= commit_frames_) return Ok();
  lost_ = true;
  return Lost("SQLite counted " + std::to_string(counted) + " commits since the WAL restarted, the WAL holds " +
              std::to_string(commit_frames_));
}

// Commits are told only once their WAL's count is checked. A batch that ends before the WAL does has not come to the
// check: it counts the rest by the frames' headers.
Status WalSource::CheckUnfinished(const Reading& r) {
  if (!check_changes_ || r.batch.empty()) return Ok();
  WalIndexHeader header;
  uint64_t more = 0;
  bool readable = connection_->Index(&header) && header.wal_salts() == r.at.salts;
  const uint32_t last = check_frame_ != 0 ? std::min(check_frame_, header.max_frame) : header.max_frame;
  const uint32_t counted = (check_frame_ != 0 ? check_count_ : header.changes) - start_changes_;
  for (uint32_t i = r.at.frame + 1; readable && i <= last; i++) {
    FrameHeader h;
    readable = connection_->ReadFrameHeader(i, &h).ok() && BelongsTo(h, r.at.salts);
    if (h.commit()) more++;
  }
  WalIndexHeader now;
  if (readable && connection_->Index(&now) && now.wal_salts() == r.at.salts && counted >= commits_seen_ &&
      counted <= commit_frames_ + more)
    return Ok();  // and checked again at its end
  lost_ = true;
  return Lost("the WAL was restarted before the commits read from it could be counted");
}

Result<Batch> WalSource::Collect(uint64_t memory_budget, const WalPosition* until) {
  reached_end_ = false;
  // A transaction begun now ends where this Collect does, or before: what it guards is captured then. Capture does not
  // depend on it: without one, a gap is still found.
  renewed_ = guard_ != nullptr && guard_->Renew().ok();
  const WalAnchor anchor = anchor_;
  Reading r;
  r.budget = memory_budget;
  r.until = until;
  r.at = position_;
  r.batch.page_size = page_size_;
  r.batch.end = position_;
  // What the last Collect brought is the base of this one.
  for (const auto& [page, frame] : new_frames_) base_frames_[page] = frame;
  new_frames_.clear();
  const ControlBlock* c = database_->control();
  const uint32_t next = c->time_next.load(std::memory_order_acquire);
  for (uint32_t i = next > kCommitTimes ? next - kCommitTimes : 0; i != next; i++) {
    const CommitTime& t = c->times[i % kCommitTimes];
    const uint64_t position = t.position.load(std::memory_order_acquire);
    r.times[position] = t.time.load(std::memory_order_relaxed);
  }
  // A commit of a process without libreplica, or one that fell out of the ring, has the time when it was first seen to
  // be there, or that of the one before it, or else of now.
  Observe();
  r.observed = &observed_;
  const int64_t now = SystemClock().WallMicros();
  r.last_time = 0;

  Status status;
  for (int attempt = 0; attempt < kLookAgain && !r.Reached(); attempt++) {
    status = ReadJournals(&r);
    if (!status.ok() || r.Reached()) break;
    WalIndexHeader header;
    if (!ReadIndex(&header)) {
      status = Status(Code::kUnavailable, database_->path() + ": the wal-index is being rebuilt");
      break;
    }
    if (header.wal_salts() != r.at.salts) {
      // The gate publishes its journal first, then its position: when the position is not ours, the journal may hold
      // more than it did a moment ago. Look again before judging.
      const Database::WalBegin begin = database_->BeginOf(header.wal_salts(), life_);
      bool entered = false;
      if (header.max_frame == 0) {
        const Succession empty = LeadsOn(r.at, header.wal_salts(), begin, true);
        entered = empty.proven && r.open.empty() && header.changes == empty.start.value_or(header.changes);
      } else {
        entered = EnterWal(header.wal_salts(), begin, true, &r);
      }
      if (!entered) {
        auto place = [](uint64_t packed) {
          return Hex16(packed).substr(0, 8) + "/" + std::to_string(static_cast<uint32_t>(packed));
        };
        status = Lost("the WAL was restarted by a process without libreplica: captured to " +
                      place(PackPosition(r.at.salts, r.at.frame)) + ", the WAL is at " +
                      place(PackPosition(header.wal_salts(), header.max_frame)) + ", the last restart seen was at " +
                      place(begin.gate));
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, nullptr);
        continue;
      }
    }
    if (header.wal_salts() == r.at.salts && header.max_frame < r.at.frame) {
      // A power loss took the WAL's end, or a recovery dropped it: what was captured is not what the database holds.
      lost_ = true;
      status = Lost("the WAL ends at frame " + std::to_string(header.max_frame) + ", captured is frame " +
                    std::to_string(r.at.frame));
      break;
    }
    status = Ok();
    reached_end_ = header.max_frame <= r.at.frame || header.wal_salts() != r.at.salts;
    if (reached_end_) break;
    const uint64_t bytes = uint64_t{header.max_frame - r.at.frame} * (page_size_ + kFrameHeaderSize);
    if (r.batch.memory.size() + bytes > r.budget) {
      status = database_->JournalFrames(connection_->region0(), UINT32_MAX);
      if (!status.ok()) break;
      continue;
    }
    status = ReadLive(header, &r);
    reached_end_ = status.ok() && until == nullptr;
    if (status.ok()) break;
    if (status.code() != Code::kUnavailable) break;
  }
  verify_journal_ = false;
  Batch& b = r.batch;
  if (Status checked = CheckUnfinished(r); !checked.ok()) status = checked;
  for (BatchCommit& commit : b.commits)
    if (commit.time == 0) commit.time = now;
  // Nothing was read to its end, perhaps because the WAL was restarted meanwhile: what comes next is proved anew.
  if (b.end.SameWal(position_) && b.end.frame == position_.frame) anchor_ = anchor;
  position_ = b.end;
  b.whole = status.ok() && until == nullptr && reached_end_;
  if (b.whole) observed_.clear();
  // Commits that do not add up with SQLite's count must not be told: some before them are missing.
  if (lost_) return status;
  // What was read before the trouble is good; the trouble will be met again from the new position, for which the
  // journal must stay.
  if (!status.ok() || !r.open.empty()) b.journals.clear();
  if (!status.ok() && b.empty() && status.code() != Code::kUnavailable) return status;
  return std::move(b);
}

uint32_t WalSource::NotDurable() const {
  WalIndexHeader header;
  const ControlBlock* c = database_->control();
  if (c->active.load() == 0 || !connection_->Index(&header)) return 0;
  const uint64_t durable = c->durable.load(std::memory_order_acquire);
  const uint64_t end = PackPosition(header.wal_salts(), header.max_frame);
  const uint32_t from = durable >> 32 == end >> 32 ? static_cast<uint32_t>(durable) : 0;
  return header.max_frame > from ? header.max_frame - from : 0;
}

Status WalSource::Relieve() {
  if (guard_ != nullptr) {
    WalIndexHeader header;
    if (database_->control()->active.load() == 0 || !connection_->Index(&header)) return Ok();
    const uint64_t end = PackPosition(header.wal_salts(), header.max_frame);
    const bool quiet = std::exchange(relieved_, end) == end;
    const bool in_the_way = guard_->InTheWay();
    if (NotDurable() < kRelieveFrames && !in_the_way && !quiet) return Ok();
    // The read marks move on with the journal.
    if (in_the_way && !guard_->Renew().ok()) return Ok();
    REPLICA_TRY(database_->JournalFrames(connection_->region0(), UINT32_MAX));
    guard_->Passed();
    if (quiet && !in_the_way) guard_->StepAside();
    return guard_->Shorten([this] { return database_->JournalFrames(connection_->region0(), UINT32_MAX); });
  }
  for (int i = 0; i < 64 && NotDurable() >= kRelieveFrames; i++)
    REPLICA_TRY(database_->JournalFrames(connection_->region0(), kRelieveFrames));
  return Ok();
}

void WalSource::Release(const Batch& batch) {
  database_->AdvanceDurable(PackPosition(batch.end.salts, batch.end.frame));
  // A journal that cannot be removed is skipped the next time: its frames lie before the position.
  (void)database_->RemoveJournals(batch.journals);
  if (!renewed_ || !reached_end_) return;
  guard_->Passed();
  // What it cannot do now it does next time; the hold that it may have lost is taken again then.
  (void)guard_->Shorten([this] { return database_->JournalFrames(connection_->region0(), UINT32_MAX); });
}

Status WalSource::ResetJournal(bool drop) {
  return database_->ResetJournal(PackPosition(position_.salts, position_.frame), drop);
}

bool WalSource::ReadBase(uint32_t page, uint64_t hash, uint8_t* out) {
  auto found = base_frames_.find(page);
  if (found != base_frames_.end() && connection_->ReadFramePage(found->second, out) &&
      PageHash(out, page_size_, page) == hash)
    return true;
  return connection_->ReadFilePage(page, out).ok() && PageHash(out, page_size_, page) == hash;
}

bool WalSource::ReadNewest(uint32_t page, uint64_t hash, uint8_t* out) {
  auto found = new_frames_.find(page);
  if (found != new_frames_.end() && connection_->ReadFramePage(found->second, out) &&
      PageHash(out, page_size_, page) == hash)
    return true;
  return ReadBase(page, hash, out);
}

Status WalSource::ReadCurrent(uint32_t page, uint8_t* out) {
  uint32_t frame = 0;
  if (auto found = new_frames_.find(page); found != new_frames_.end())
    frame = found->second;
  else if (auto base = base_frames_.find(page); base != base_frames_.end())
    frame = base->second;
  WalIndexHeader header;
  // Of a WAL that was restarted since, all is in the database file.
  if (frame != 0 && connection_->ReadFramePage(frame, out) && connection_->Index(&header) &&
      header.wal_salts() == new_frames_salts_)
    return Ok();
  return connection_->ReadFilePage(page, out);
}

bool WalSource::AtView() const {
  const ReadState& view = view_.state();
  if (position_.SameWal(view.position)) return position_.frame == view.position.frame;
  if (view.position.frame != 0) return false;
  // The view began in a WAL that had no commit yet: what counts is that nothing is missing of the one before.
  const Succession succession =
      LeadsOn(position_, view.position.salts, database_->BeginOf(view.position.salts, life_), true);
  return succession.proven && view.changes >= succession.start.value_or(0);
}

Status WalSource::BeginView() {
  REPLICA_TRY(view_.Begin());
  view_anchor_ = {};
  if (!view_.state().empty_wal) return Ok();
  // The WAL held nothing, and no gate changes that it was the last one's which had passed before.
  view_anchor_ = {life_, view_.state().changes, 0};
  uint32_t changes = 0;
  view_anchor_.gate = database_->LastGate(life_, &changes);
  return Ok();
}

void WalSource::EndView() {
  view_.End();
}

}  // namespace replica

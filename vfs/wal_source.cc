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

void WalSource::SetPosition(const WalPosition& position) {
  position_ = position;
  lost_ = false;
  base_frames_.clear();
  new_frames_.clear();
  new_frames_salts_ = position.salts;
}

bool WalSource::ReadIndex(WalIndexHeader* header) {
  if (connection_->Index(header)) return true;
  // A process was killed while it changed it: the next read transaction rebuilds it, if need be one of ours.
  ReadState ignored;
  if (connection_->BeginRead(&ignored).ok()) connection_->EndRead();
  return connection_->Index(header);
}

bool WalSource::HasFrame(const WalIndexHeader& header) const {
  FrameHeader frame;
  return header.max_frame >= position_.frame && connection_->ReadFrameHeader(position_.frame, &frame).ok() &&
         BelongsTo(frame, position_.salts) && frame.checksum[0] == position_.checksum[0] &&
         frame.checksum[1] == position_.checksum[1];
}

Result<bool> WalSource::InLiveWal() {
  WalIndexHeader header;
  if (!ReadIndex(&header)) return Status(Code::kUnavailable, database_->path() + ": the wal-index is being rebuilt");
  // A frame without a checksum (BelongsTo) proves nothing by itself.
  return position_.frame != 0 && (position_.checksum[0] | position_.checksum[1]) != 0 &&
         header.wal_salts() == position_.salts && HasFrame(header);
}

Result<WalChain> WalSource::Look(WalIndexHeader* header) {
  if (!ReadIndex(header)) return Status(Code::kUnavailable, database_->path() + ": the wal-index is being rebuilt");
  return database_->Look(connection_->region0(), header);
}

Result<bool> WalSource::Reachable(const FileStamp& stamp) {
  for (int attempt = 0; attempt < kLookAgain; attempt++) {
    WalIndexHeader header;
    REPLICA_ASSIGN(const WalChain chain, Look(&header));
    if (position_.salts == WalSalts{} || header.wal_salts() != position_.salts)
      return ReachableByChain(header, chain, stamp);
    const bool found = position_.frame == 0 || HasFrame(header);
    if (found && chain.salts == position_.salts) {
      position_.chain = chain.id;
      position_.ordinal = chain.ordinal;
    }
    if (found) return true;
    // SQLite changes the salts in the wal-index before it takes frames away.
    WalIndexHeader now;
    if (ReadIndex(&now) && now.wal_salts() == position_.salts) return false;
  }
  return Status(Code::kUnavailable, database_->path() + ": the WAL is restarted again and again while it is looked at");
}

Result<bool> WalSource::ReachableByChain(const WalIndexHeader& header, const WalChain& chain, const FileStamp& stamp) {
  REPLICA_ASSIGN(bool reachable, LeadsTo(header, chain));
  // When the first of our processes came the file was what is captured, and all that came since is in this chain.
  if (!reachable && chain.opened != 0 && chain.opened == HashOf(stamp)) {
    position_ = {};
    position_.chain = chain.id;
    REPLICA_ASSIGN(reachable, LeadsTo(header, chain));
  }
  return reachable;
}

Result<bool> WalSource::LeadsTo(const WalIndexHeader& header, const WalChain& chain) {
  if (header.max_frame == 0
          ? IsEnd(position_, chain)
          : IsIn(position_, chain.id, chain.ordinal) || Follows(position_, chain.id, chain.ordinal, chain.previous_end))
    return true;
  REPLICA_ASSIGN(auto journals, database_->RotateJournal());
  for (const std::string& path : journals) {
    auto bytes = FileBytes::Open(path);
    if (!bytes.ok()) return bytes.status();
    for (uint64_t at = 0; at + kJournalChunkSize <= (*bytes)->size();) {
      JournalChunk chunk;
      REPLICA_ASSIGN(std::string head, (*bytes)->Read(at, kJournalChunkSize));
      if (!DecodeChunk(head, &chunk)) break;
      if (chunk.first == 1 && Follows(position_, chunk.chain, chunk.ordinal, chunk.previous_end)) return true;
      if ((chunk.salts == position_.salts || IsIn(position_, chunk.chain, chunk.ordinal)) &&
          chunk.first <= position_.frame + 1 && chunk.first + chunk.count > position_.frame)
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
  if (header.max_frame == 0) (void)database_->NoteQuiet(connection_->region0());
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
  if (position_.salts == WalSalts{} || header.wal_salts() != position_.salts)
    return journaled + header.max_frame * frame_size;
  return header.max_frame > position_.frame ? (header.max_frame - position_.frame) * frame_size : 0;
}

bool WalSource::Enter(const WalSalts& salts, uint64_t chain, uint32_t ordinal, uint32_t previous_end, Reading* r) {
  if (r->at.salts == WalSalts{} && IsIn(r->at, chain, ordinal)) {
    // The position was between two WALs, and the earlier one is there again.
    r->at.salts = new_frames_salts_ = salts;
    return true;
  }
  if (!Follows(r->at, chain, ordinal, previous_end) || !r->open.empty()) return false;
  r->at = {};
  r->at.salts = salts;
  r->at.chain = chain;
  r->at.ordinal = ordinal;
  r->has_last_commit = false;
  base_frames_.clear();
  new_frames_.clear();
  new_frames_salts_ = salts;
  return true;
}

// Adds one frame; at the end of a commit, the commit.
Status WalSource::AddFrame(const FrameHeader& header, Batch::Frame frame, Reading* r) {
  r->at.frame++;
  r->at.checksum[0] = header.checksum[0];
  r->at.checksum[1] = header.checksum[1];
  new_frames_[header.page] = r->at.frame;
  r->open.push_back(frame);
  if (!header.commit()) return Ok();

  Batch& b = r->batch;
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
  }
  r->open.clear();
  r->last_commit = header;
  r->has_last_commit = true;
  b.end = r->at;
  b.end_changes_known = false;
  return Ok();
}

Status WalSource::ReadLive(const WalIndexHeader& header, Reading* r) {
  const uint64_t frame_size = page_size_ + kFrameHeaderSize;
  uint32_t last = header.max_frame;
  if (r->InLastWal()) last = std::min(last, r->until->frame);
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
  }
  return Ok();
}

// The times of the commits that the wal-index shows by now. The newest of them may not be tapped yet: then it has the
// time of this look, as a commit of a process without libreplica has. What fell out of the ring has the time when it
// was first seen to be there, or that of the one before it.
void WalSource::LookAtTimes(Reading* r) {
  // In this order: a commit that this sees to be tapped, or another one behind it, is in the ring.
  Observe();
  const ControlBlock* c = database_->control();
  const uint32_t next = c->time_next.load(std::memory_order_acquire);
  uint32_t first = next > kCommitTimes ? next - kCommitTimes : 0;
  if (r->times_next != 0 && next - r->times_next < next - first) first = r->times_next;
  for (uint32_t i = first; i != next; i++) {
    const CommitTime& t = c->times[i % kCommitTimes];
    const uint64_t position = t.position.load(std::memory_order_acquire);
    if (const int64_t time = LoadTime(t.time); time != 0) r->times[position] = time;
  }
  r->times_next = next;
}

Result<Batch> WalSource::Collect(uint64_t memory_budget, const WalPosition* until) {
  reached_end_ = false;
  // A transaction begun now ends where this Collect does, or before: what it guards is captured then. Capture does not
  // depend on it: without one, a gap is still found.
  renewed_ = guard_ != nullptr && guard_->Renew().ok();
  Reading r;
  r.budget = memory_budget;
  r.until = until;
  r.at = position_;
  r.batch.page_size = page_size_;
  r.batch.end = position_;
  // What the last Collect brought is the base of this one.
  for (const auto& [page, frame] : new_frames_) base_frames_[page] = frame;
  new_frames_.clear();
  r.observed = &observed_;
  LookAtTimes(&r);
  const int64_t now = SystemClock().WallMicros();
  r.last_time = 0;

  Status status;
  for (int attempt = 0; attempt < kLookAgain && !r.Reached(); attempt++) {
    status = ReadJournals(&r);
    if (!status.ok() || r.Reached()) break;
    WalIndexHeader header;
    auto chain = Look(&header);
    if (!chain.ok()) {
      status = chain.status();
      break;
    }
    LookAtTimes(&r);
    const bool same = r.at.salts != WalSalts{} && header.wal_salts() == r.at.salts;
    if (same && chain->salts == r.at.salts) {
      r.at.chain = chain->id;
      r.at.ordinal = chain->ordinal;
      if (r.batch.empty() && r.open.empty()) r.batch.end = r.at;
    } else if (!same) {
      const bool entered = header.max_frame == 0
                               ? r.open.empty() && IsEnd(r.at, *chain)
                               : Enter(header.wal_salts(), chain->id, chain->ordinal, chain->previous_end, &r);
      if (!entered) {
        // A gate writes its journal before the WAL is restarted: the journal may hold more than it did a moment ago.
        auto place = [](const WalSalts& salts, uint32_t frame) {
          return Hex16(PackPosition(salts, frame)).substr(0, 8) + "/" + std::to_string(frame);
        };
        status = Lost("captured to " + place(r.at.salts, r.at.frame) + ", WAL " + std::to_string(r.at.ordinal) +
                      " of its row; the WAL is at " + place(header.wal_salts(), header.max_frame) + ", number " +
                      std::to_string(chain->ordinal) + (chain->id == r.at.chain ? "" : " of another row") +
                      ", and the one before it ended at " + std::to_string(chain->previous_end));
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, nullptr);
        continue;
      }
    }
    if (same && header.max_frame < r.at.frame) {
      // A power loss took the WAL's end, or a recovery dropped it: what was captured is not what the database holds.
      lost_ = true;
      status = Lost("the WAL ends at frame " + std::to_string(header.max_frame) + ", captured is frame " +
                    std::to_string(r.at.frame));
      break;
    }
    status = Ok();
    reached_end_ = header.max_frame == 0 || header.max_frame <= r.at.frame || header.wal_salts() != r.at.salts;
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
  for (BatchCommit& commit : b.commits)
    if (commit.time == 0) commit.time = now;
  position_ = b.end;
  b.whole = status.ok() && until == nullptr && reached_end_;
  if (b.whole) observed_.clear();
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
  if (view_position_.salts != WalSalts{} && position_.SameWal(view_position_))
    return position_.frame == view_position_.frame;
  return IsIn(position_, view_position_.chain, view_position_.ordinal) && position_.frame == view_position_.frame;
}

void WalSource::SetPositionToView() {
  SetPosition(view_position_);
  base_frames_ = view_.frames();
}

Status WalSource::BeginView() {
  REPLICA_TRY(view_.Begin());
  // The view keeps the WAL that it is of, or (mark 0) the one after it, from being restarted.
  WalIndexHeader header;
  auto chain = Look(&header);
  if (!chain.ok()) {
    view_.End();
    return chain.status();
  }
  view_position_ = view_.state().position;
  const bool same = chain->salts == view_position_.salts;
  if (view_position_.frame == 0) {
    // No commit of a WAL belongs to it: it is where the WAL before ended.
    view_position_ = EndOf(*chain);
    if (header.max_frame != 0) {
      view_position_.ordinal = chain->ordinal - 1;
      view_position_.frame = chain->previous_end;
    }
  } else if (same || chain->previous_end == view_position_.frame) {
    view_position_.chain = chain->id;
    view_position_.ordinal = same ? chain->ordinal : chain->ordinal - 1;
  }
  return Ok();
}

void WalSource::EndView() {
  view_.End();
}

}  // namespace replica

// Attach: where capture begins is decided by what can be proved (docs/architecture.md, "Attach").
#include <unistd.h>

#include <algorithm>

#include "base/fs.h"
#include "uploader/engine.h"
#include "uploader/restore.h"

namespace replica {
namespace {

constexpr uint64_t kLeastSpool = 256ULL << 20;  // bytes
constexpr int64_t kFirstLook = 1000000;         // µs after the attach, at least
constexpr int64_t kLookedJustNow = 60000000;    // µs

}  // namespace

Status Engine::Attach() {
  source_->LetGo();  // what follows may wait for the network
  queue_.clear();
  attach_++;
  log_in_flight_ = false;
  snapshot_in_flight_ = false;
  snapshot_.reset();
  builder_.reset();
  needs_resync_ = false;
  capture_due_ = true;
  fenced_ = false;
  looking_ = false;
  // A look is not worth its cost to a process that has the database open for a moment, or after another's.
  PlanLook(clock_.WallMicros() - control_->looked_at.load() < kLookedJustNow ? kLookedJustNow : kFirstLook);
  bool table_valid = false;
  REPLICA_ASSIGN(auto loaded, state_file_.Load(&table_, &table_valid));
  const bool known = loaded.has_value() && loaded->url == store_->url();
  if (loaded) state_ = *loaded;
  if (loaded && !known && !loaded->url.empty())
    events_.Add("replica", "replicated to " + loaded->url + " so far, from now on to " + store_->url() +
                               ". The history there ends here: to come back to it needs a takeover");
  if (known && state_.fenced && !options_.takeover) {
    control_->active.store(0);
    fenced_ = attached_ = true;
    PublishPosition();
    SetError(Status(
        Code::kConflict,
        store_->url() +
            " has another writer since this database last uploaded; nothing is uploaded. If this "
            "database is the one to keep, attach it with the option \"takeover\": true (REPLICA_TAKEOVER=true)"));
    return Ok();
  }
  const bool same_folder = known && state_.folder_identity == state_file_.FolderIdentity();
  if (known && same_folder && table_valid && !state_.restored && !state_.fenced && !state_.partial &&
      state_.page_size == source_->page_size()) {
    // `active` stays what it is: frames that a gate meets meanwhile go to the journal that this leader will read.
    Status status = LoadSpool();
    if (status.ok()) return AttachLocal();
    events_.Add("resync", "the spool is not what it was: " + status.message());
    queue_.clear();
    table_valid = false;
  }
  control_->active.store(0);
  if (!same_folder) state_.writer = RandomNumber();
  return AttachReplica(known, table_valid && !state_.partial);
}

// Everything needed is in the folder: no network.
Status Engine::AttachLocal() {
  // As its last close left it now, or when this process opened it: then the first WAL of that life came next, which may
  // be over by now. (A note of another close with the same stamp does not vouch for the stamp.)
  const bool closed = IsPosition(place_.closed);
  const bool opened = state_.stamp != FileStamp{} && state_.stamp == place_.opened &&
                      (place_.opened_closed.stamp == FileStamp{} || IsPosition(place_.opened_closed));
  const bool unchanged = closed || opened;
  if (unchanged) {
    // Kept for a leader that follows before anything was captured.
    const auto& wal = closed ? place_.closed_wal : place_.opened_wal;
    if (source_->NothingCommitted()) {
      state_.anchor = source_->FirstAnchor();
    } else if (wal == decltype(wal){}) {
      state_.anchor = closed ? source_->FirstAnchor() : WalAnchor{place_.opened_life, 0, 0};
    } else if (wal != state_.wal.salts) {
      // It was there before the wal-index: SQLite's count tells nothing of its commits. But the file is as it was left,
      // so this WAL is the first since.
      state_.wal = {};
      state_.wal.salts = wal;
      state_.anchor = {};
    }
    if (closed) state_.stamp = place_.closed.stamp;
    (void)Save({});
  }
  source_->SetClosedGate(place_.closed.gate);
  source_->SetPosition(state_.wal, state_.anchor);
  REPLICA_ASSIGN(const bool reachable, source_->Reachable());
  REPLICA_TRY(source_->ResetJournal(!reachable));
  attached_ = true;
  PublishPosition();
  if (reachable) {
    Activate();
  } else {
    LoseTrack("the last position is not in the WAL (a power loss, or writers without libreplica)");
  }
  events_.Add("attach", "at TXID " + std::to_string(state_.txid) +
                            (needs_resync_ ? ": the position must be found by comparing"
                             : unchanged   ? ": the file is as it was left"
                                           : ": the WAL goes on from it"));
  Acknowledge();
  return Ok();
}

bool Engine::IsPosition(const ClosedAt& closed) const {
  if (closed.gate != 0 && closed.gate == state_.wal.Packed()) return true;
  return closed.anchor.life != 0 && closed.anchor == state_.anchor;
}

uint64_t Engine::SpoolLimit() const {
  if (options_.spool_limit != 0) return options_.spool_limit;
  return std::max(kLeastSpool, uint64_t{table_.pages()} * state_.page_size);
}

void Engine::Activate() {
  control_->spool_limit.store(SpoolLimit());
  control_->overflow.store(0);
  control_->active.store(1, std::memory_order_seq_cst);
}

// Segments that were captured and not acknowledged when the last leader ended.
Status Engine::LoadSpool() {
  const std::string folder = place_.folder + "/spool";
  REPLICA_ASSIGN(auto names, ListFiles(folder));
  uint64_t bytes = 0;
  std::string path;
  for (const std::string& name : names) {
    uint64_t sequence = 0;
    if (name.rfind("journal-", 0) == 0) continue;
    const bool log = name.rfind("log-", 0) == 0 && ParseHex16(std::string_view(name).substr(4), &sequence);
    if (log && sequence > state_.acknowledged_sequence && sequence <= state_.sequence) continue;
    // Acknowledged already, written but never noted in the state (its commits are captured again), or a half-made file.
    path.assign(folder).append("/").append(name);
    REPLICA_TRY(RemoveFile(path));
  }
  uint64_t txid = 0;
  for (uint64_t sequence = state_.acknowledged_sequence + 1; sequence <= state_.sequence; sequence++) {
    path = SpoolPath(sequence);
    REPLICA_ASSIGN(auto file, FileBytes::Open(path));
    REPLICA_ASSIGN(auto reader, SegmentReader::Open(file.get()));
    REPLICA_TRY(reader->CheckSha256());
    const Segment& s = reader->segment();
    if (s.header.sequence != sequence || s.header.generation != state_.generation ||
        (txid != 0 && s.header.min_txid != txid + 1))
      return {Code::kCorrupt, path + " is not the segment that its name says"};
    txid = s.trailer.max_txid;
    REPLICA_ASSIGN(std::string whole, ReadFile(path, UINT64_MAX));
    Pending pending;
    pending.encoded.path = path;
    pending.encoded.size = whole.size();
    pending.encoded.sha256 = ObjectBody::FromBytes(std::move(whole)).sha256;
    pending.encoded.segment = s;
    pending.first_commit = s.commits.front().time;
    bytes += pending.encoded.size;
    queue_.push_back(std::move(pending));
  }
  if (txid != 0 && txid != state_.txid) return {Code::kCorrupt, folder + " does not end at the state's TXID"};
  control_->spool_bytes.store(bytes);
  return Ok();
}

Status Engine::AttachReplica(bool known, bool table_valid) {
  REPLICA_ASSIGN(auto generations, ListGenerations(store_.get()));
  if (generations.empty()) return NewGeneration(false);
  Id generation = generations.back();
  if (known && std::find(generations.begin(), generations.end(), state_.generation) != generations.end())
    generation = state_.generation;
  REPLICA_ASSIGN(ReplicaHead head, ReadHead(store_.get(), generation));
  // Begun and never finished: nothing is restorable from it, so nothing is lost beside it.
  if (!head.any) return NewGeneration(false);
  return AdoptHead(generation, head, known, table_valid);
}

// Continues the history that ends with `head`, if it is this database's.
Status Engine::AdoptHead(const Id& generation, const ReplicaHead& head, bool known, bool table_valid) {
  const SegmentHeader& h = head.last.header;
  const SegmentTrailer& t = head.last.trailer;
  const bool lineage = known && state_.database == h.database && state_.generation == generation;
  const bool same_size = source_->page_size() == h.page_size;
  PageTable scanned;
  if (!lineage) {
    // An unknown database may be this one with its replica folder lost: equal content proves it.
    if (same_size) {
      REPLICA_TRY(WithView([&]() -> Status {
        REPLICA_ASSIGN(scanned, ScanView(source_));
        return Ok();
      }));
    }
    bool equal = same_size && scanned.checksum() == t.checksum_after && scanned.pages() == t.pages_after;
    if (equal) {
      REPLICA_ASSIGN(equal, ClaimIsOfThisPath());
    }
    if (!equal && !options_.takeover)
      return {Code::kConflict, store_->url() + " holds the history of another database (id " + HexEncode(h.database) +
                                   ", TXID " + std::to_string(head.txid) + " of " + FormatTime(t.created) +
                                   "), or of this one before its replica folder was lost; nothing was written. Use "
                                   "another prefix, restore that history, or continue it with this database's "
                                   "content by the option \"takeover\": true (REPLICA_TAKEOVER=true)"};
    if (equal) {
      table_ = std::move(scanned);
      table_valid = true;
    } else {
      table_valid = false;
    }
  } else if (!table_valid || state_.txid != head.txid || state_.checksum != t.checksum_after) {
    table_valid = false;
  }
  // A file that was restored goes on with the history in its database's place. Elsewhere it is a copy: a restore that
  // is only tried must not take the history from the database that it is of.
  if (lineage && state_.restored && !options_.takeover) {
    REPLICA_ASSIGN(const std::string owner, ClaimedPath());
    if (!owner.empty() && owner != place_.database)
      return {Code::kConflict, store_->url() + " holds the history of " + owner + "; " + place_.database +
                                   " is a copy that was restored from it, and nothing was written. Use another prefix, "
                                   "or, if the copy is to go on in its place, attach it with the option \"takeover\": "
                                   "true (REPLICA_TAKEOVER=true)"};
  }
  if (!same_size) {
    events_.Add("generation", "the replica's page size is another: a new generation begins");
    return NewGeneration(true);
  }
  if (!table_valid) REPLICA_TRY(RebuildTable(generation));
  if (!lineage || state_.fenced || state_.restored) {
    state_.writer = RandomNumber();
    REPLICA_TRY(store_->Put(kClaimKey, ObjectBody::FromBytes(ClaimText()), false));
  }
  const bool unchanged = lineage && table_valid && state_.stamp != FileStamp{} && state_.stamp == place_.opened;
  state_.database = h.database;
  state_.generation = generation;
  state_.folder_identity = state_file_.FolderIdentity();
  state_.page_size = h.page_size;
  state_.txid = state_.acknowledged_txid = head.txid;
  state_.sequence = state_.acknowledged_sequence = head.sequence;
  state_.checksum = t.checksum_after;
  state_.time = head.last.commits.empty() ? 0 : head.last.commits.back().time;
  state_.snapshot_txid = head.snapshot_txid;
  state_.snapshot_bytes = head.snapshot_bytes;
  state_.snapshot_time = clock_.WallMicros();
  state_.log_bytes = head.log_bytes;
  state_.restored = state_.fenced = state_.partial = false;
  state_.url = store_->url();
  if (!unchanged) {
    state_.wal = {};
    state_.anchor = {};
  }
  REPLICA_TRY(state_file_.SaveAll(&state_, table_));
  // Of an earlier history.
  REPLICA_ASSIGN(auto names, ListFiles(place_.folder + "/spool"));
  for (const std::string& name : names)
    if (name.rfind("journal-", 0) != 0) REPLICA_TRY(RemoveFile(place_.folder + "/spool/" + name));
  control_->spool_bytes.store(0);
  if (unchanged) return AttachLocal();
  attached_ = true;
  LoseTrack(lineage ? "the replica was restored or continued elsewhere" : "this folder did not know the replica");
  events_.Add("attach", "to the history of " + store_->url() + " at TXID " + std::to_string(state_.txid));
  Acknowledge();
  return Ok();
}

// The page hashes at the replica's head, from its content.
Status Engine::RebuildTable(const Id& generation) {
  const std::string path = place_.folder + "/rebuild";
  REPLICA_TRY(RemoveFile(path));
  events_.Add("resync", "reading the replica, to find what differs");
  RestoreTarget target;
  target.generation = generation;
  auto restored = RestoreFile(store_.get(), target, path, {});
  (void)RemoveFile(path);
  if (!restored.ok()) return restored.status();
  table_ = std::move(restored->table);
  return Ok();
}

// Finds out whether the store keeps two writers apart, before anything depends on it.
Status Engine::ProbeFencing(const Id& generation) {
  if (!options_.fencing) return Ok();
  const std::string key = GenerationPrefix(generation) + "probe";
  Status first = store_->Put(key, ObjectBody::FromBytes("libreplica"), true);
  if (!first.ok() && first.code() != Code::kExists) return first;
  Status second = store_->Put(key, ObjectBody::FromBytes("libreplica"), true);
  (void)store_->Delete({key});  // without the right to delete it stays, and readers pass over it
  if (second.code() == Code::kExists) return Ok();
  if (!second.ok()) return second;
  return {Code::kUnsupported,
          store_->url() +
              ": the store ignores If-None-Match, so two writers could not be told apart: use another store, or "
              "accept that with the option \"fencing\": false"};
}

// Which replica folder this is, and whose, for people.
std::string Engine::ClaimText() const {
  char host[256] = {};
  (void)::gethostname(host, sizeof host - 1);
  return Hex16(state_file_.FolderIdentity()) + " " + place_.database + " on " + host + "\n";
}

// The path of the database whose claim lies at the URL; empty when there is none.
Result<std::string> Engine::ClaimedPath() {
  auto claim = store_->Get(kClaimKey, 0, kClaimLimit);
  if (claim.status().code() == Code::kNotFound) return std::string();
  if (!claim.ok()) return claim.status();
  const size_t end = claim->rfind(" on ");
  if (claim->size() < 17 || end == std::string::npos || end < 17) return std::string();
  return claim->substr(17, end - 17);
}

// False when the claim names another database or machine: then equal content proves nothing, as new databases are
// equal.
Result<bool> Engine::ClaimIsOfThisPath() {
  auto theirs = store_->Get(kClaimKey, 0, kClaimLimit);
  if (theirs.status().code() == Code::kNotFound) return true;
  if (!theirs.ok()) return theirs.status();
  const std::string mine = ClaimText();
  return theirs->size() > 16 && theirs->substr(16) == mine.substr(16);
}

// Two databases that find the same URL empty at the same time must not both begin there. The claim names a replica
// folder, which a crash between the claim and the first state does not change.
Status Engine::Claim() {
  const std::string mine = ClaimText();
  const bool may_replace = options_.takeover || !options_.fencing;
  Status status = store_->Put(kClaimKey, ObjectBody::FromBytes(mine), !may_replace);
  if (status.code() != Code::kExists) return status;
  REPLICA_ASSIGN(std::string theirs, store_->Get(kClaimKey, 0, kClaimLimit));
  if (theirs.substr(0, 16) == mine.substr(0, 16)) return Ok();
  for (char& c : theirs)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return {Code::kConflict, store_->url() + " is claimed by another database (" +
                               (theirs.size() > 17 ? theirs.substr(17) : theirs) +
                               "); nothing was written. Use another prefix, or, if that database is gone, attach with "
                               "the option \"takeover\": true (REPLICA_TAKEOVER=true)"};
}

Status Engine::NewGeneration(bool rightful) {
  if (!rightful) REPLICA_TRY(Claim());
  const Id generation = NewGenerationId(clock_.WallMicros());
  REPLICA_TRY(ProbeFencing(generation));
  EngineState fresh;
  fresh.revision = state_.revision;
  fresh.database = state_.database == Id{} ? RandomId() : state_.database;
  fresh.generation = generation;
  fresh.writer = RandomNumber();
  fresh.folder_identity = state_file_.FolderIdentity();
  fresh.page_size = source_->page_size();
  fresh.txid = 1;
  fresh.acknowledged_txid = 0;
  fresh.url = store_->url();
  REPLICA_TRY(WithView([&]() -> Status {
    REPLICA_ASSIGN(PageTable table, ScanView(source_));
    REPLICA_ASSIGN(auto names, ListFiles(place_.folder + "/spool"));
    for (const std::string& name : names)
      if (name.rfind("journal-", 0) != 0) REPLICA_TRY(RemoveFile(place_.folder + "/spool/" + name));
    control_->spool_bytes.store(0);
    fresh.checksum = table.checksum();
    fresh.time = clock_.WallMicros();
    fresh.wal = source_->view_position();
    fresh.anchor = source_->view_anchor();
    REPLICA_TRY(state_file_.SaveAll(&fresh, table));
    state_ = fresh;
    table_ = std::move(table);
    source_->SetPosition(state_.wal, state_.anchor);
    REPLICA_TRY(source_->ResetJournal(true));
    Activate();
    return Ok();
  }));
  queue_.clear();
  needs_resync_ = false;
  attached_ = true;
  control_->acknowledged_txid.store(0);
  events_.Add("generation", HexEncode(generation) + " begins with " + std::to_string(table_.pages()) + " pages");
  PublishPosition();
  return Ok();
}

}  // namespace replica

// Attach: where capture begins is decided by what can be proved (docs/architecture.md, "Attach").
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/boot.h"
#include "base/fs.h"
#include "uploader/engine.h"
#include "uploader/restore.h"

namespace replica {
namespace {

constexpr uint64_t kLeastSpool = 256ULL << 20;  // bytes
constexpr int64_t kFirstLook = 1000000;         // µs after the attach, at least
constexpr int64_t kLookedJustNow = 60000000;    // µs

// The names that this file and engine_capture.cc give to files of the spool, and nothing else in it is ever removed:
// the folder may have been put there by somebody else.
bool IsSegmentName(const std::string& name) {
  uint64_t number = 0;
  for (const char* prefix : {"log-", "snapshot-"})
    if (name.rfind(prefix, 0) == 0 && ParseHex16(std::string_view(name).substr(std::strlen(prefix), 16), &number))
      return true;
  return false;
}

}  // namespace

Status Engine::Attach() {
  source_->LetGo();  // what follows may wait for the network
  TemporaryCopy::RemoveAbandoned(place_.folder);
  queue_.clear();
  attach_++;
  log_in_flight_ = false;
  snapshot_in_flight_ = false;
  snapshot_.reset();
  builder_.reset();
  comparison_.reset();
  scan_.reset();
  needs_resync_ = false;
  capture_due_ = true;
  fenced_ = replaced_ = false;
  looking_ = false;
  // A look is not worth its cost to a process that has the database open for a moment, or after another's.
  const int64_t ago = clock_.WallMicros() - LoadTime(control_->looked_at);
  PlanLook(ago >= 0 && ago < kLookedJustNow ? kLookedJustNow : kFirstLook);
  Known known;
  REPLICA_ASSIGN(auto loaded, state_file_.Load(&table_, &known.table_valid));
  known.any = loaded.has_value();
  known.same_url = known.any && loaded->url == store_->url();
  if (loaded) state_ = *loaded;
  if (loaded && !known.same_url && !loaded->url.empty())
    events_.Add("replica", "replicated to " + loaded->url + " so far, from now on to " + store_->url() +
                               ". The history there ends here: to come back to it needs a takeover");
  control_->file_device.store(source_->file().device);
  control_->file_inode.store(source_->file().inode, std::memory_order_seq_cst);
  if (known.same_url && state_.fenced && !options_.takeover) {
    auto claim = ReadClaim();
    Fence("another writer" + (claim.ok() && claim->any ? " (" + claim->text + ")" : "") +
          " since this database last uploaded");
    return Ok();
  }
  known.same_folder = known.same_url && state_file_.IsFolder(state_.folder_identity);
  if (known.same_folder && known.table_valid && !state_.restored && !state_.behind && !state_.fenced &&
      !state_.partial && state_.page_size == source_->page_size()) {
    // `active` stays what it is: frames that a gate meets meanwhile go to the journal that this leader will read.
    Status status = LoadSpool();
    if (status.ok()) return AttachLocal();
    events_.Add("resync", "the spool is not what it was: " + status.message());
    queue_.clear();
    known.table_valid = false;
  }
  control_->active.store(0);
  known.table_valid = known.table_valid && !state_.partial;
  return AttachReplica(known);
}

// Everything needed is in the folder: no network.
Status Engine::AttachLocal() {
  // Chains of WALs and file stamps are evidence within one start of the machine only. A power loss may take the
  // end of the WAL, and what is written afterwards may come to the same frame again; and it may leave a file's times
  // older than its content. Nor does the WAL prove what the file holds: with synchronous=OFF a power loss takes pages
  // that a checkpoint has written.
  const bool same_boot = state_.boot == BootHash();
  const bool same_file = state_.file == FileId{} || (state_.file.inode == source_->file().inode &&
                                                     (state_.file.device == source_->file().device || !same_boot));
  source_->SetPosition(state_.wal);
  // A journal of before the machine's start holds frames that the WAL has as well, or that nobody has any more.
  REPLICA_TRY(source_->ResetJournal(!same_boot));
  // Before anything is looked at: a WAL that is restarted after the look has its frames in the journal.
  Activate();
  bool reachable = false;
  if (same_file) {
    REPLICA_ASSIGN(reachable, same_boot ? source_->Reachable(state_.stamp) : source_->InLiveWal());
  }
  if (!reachable) REPLICA_TRY(source_->ResetJournal(true));
  attached_ = true;
  PublishPosition();
  if (reachable) {
    state_.file = source_->file();
    state_.wal = source_->position();
    if (!same_boot) state_.unread = true;
    (void)Save({});
    events_.AddLater("attach", "at TXID " + std::to_string(state_.txid) + ": nothing is missing since");
  } else if (!same_file) {
    LoseTrack("another file is at " + place_.database + " than the one that was replicated");
  } else if (!same_boot) {
    LoseTrack("the machine was started since, and the last position is not in the WAL");
  } else {
    LoseTrack("the last position is not in the WAL (writers without libreplica, or a process that was killed)");
  }
  if (!reachable)
    events_.Add("attach", "at TXID " + std::to_string(state_.txid) + ": the position must be found by comparing");
  Acknowledge();
  return Ok();
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
    if (!IsSegmentName(name)) continue;
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

Status Engine::AttachReplica(const Known& known) {
  if (!store_->endpoint()->TryBegin()) return {Code::kUnavailable, store_->endpoint()->error()};
  REPLICA_ASSIGN(auto generations, ListGenerations(store_.get()));
  if (generations.empty()) {
    REPLICA_TRY(ClaimUrl());
    return NewGeneration(Id{});
  }
  const Id newest = generations.back();
  Id generation = newest;
  if (known.same_url && std::find(generations.begin(), generations.end(), state_.generation) != generations.end())
    generation = state_.generation;
  REPLICA_ASSIGN(ReplicaHead head, ReadHead(store_.get(), generation));
  // Ended, and this folder did not begin what came after it: that is the history now.
  if (head.end && generation != newest) {
    generation = newest;
    REPLICA_ASSIGN(head, ReadHead(store_.get(), generation));
  }
  if (head.snapshot_txid == 0) {
    // Begun and never finished: nothing is restorable from it, so nothing is lost beside it.
    REPLICA_TRY(ClaimUrl());
    REPLICA_TRY(EndGeneration(generation, head));
    return NewGeneration(newest);
  }
  return AdoptHead(generation, newest, head, known);
}

// Gathers the facts, also at the store, and decides.
Result<Lineage> Engine::LineageOf(const Id& generation, const ReplicaHead& head, const Known& known,
                                  PageTable* scanned) {
  const SegmentHeader& h = head.last.header;
  const SegmentTrailer& t = head.last.trailer;
  LineageFacts facts;
  facts.takeover = options_.takeover;
  facts.knows_history = known.same_url && state_.database == h.database && state_.generation == generation;
  facts.knows_other = known.any && !facts.knows_history;
  facts.same_folder = known.same_folder;
  facts.restored = state_.restored;
  const uint64_t acknowledged = std::max(state_.acknowledged_txid, state_.snapshot_txid);
  facts.head_is_known =
      head.sequence < state_.acknowledged_sequence ||
      (head.sequence == state_.acknowledged_sequence && head.txid == acknowledged) ||
      (head.sequence == state_.sequence && head.txid == state_.txid && t.checksum_after == state_.checksum);
  facts.head_is_ours = (head.end ? head.end->writer : h.writer) == state_.writer;
  if (head.end && !facts.head_is_ours) facts.head_is_known = false;
  if (!facts.knows_history && source_->page_size() == h.page_size) {
    // An unknown database may be this one with its replica folder lost: equal content proves it.
    REPLICA_ASSIGN(*scanned, ScanAll());
    control_->active.store(0);  // nothing is captured yet
    facts.content_is_head = scanned->checksum() == t.checksum_after && scanned->pages() == t.pages_after;
  }
  REPLICA_ASSIGN(const Claim claim, ReadClaim());
  char host[256] = {};
  (void)::gethostname(host, sizeof host - 1);
  facts.claim_missing = !claim.any;
  facts.claim_is_folder = claim.any && state_file_.IsFolder(claim.identity);
  facts.claim_is_path = claim.any && claim.path == place_.database;
  facts.claim_is_place = facts.claim_is_path && claim.host == host;

  const Lineage lineage = DecideLineage(facts);
  const std::string where = claim.any ? " (claimed by " + claim.text + ")" : "";
  const std::string takeover = ", attach it with the option \"takeover\": true (REPLICA_TAKEOVER=true)";
  switch (lineage) {
    case Lineage::kRefuseForeign:
      return Status(Code::kConflict,
                    store_->url() + " holds the history of another database (id " + HexEncode(h.database) + ", TXID " +
                        std::to_string(head.txid) + " of " + FormatTime(t.created) + ")" + where +
                        ", or of this one before its replica folder was lost; nothing was written. Use another prefix, "
                        "restore that history, or, to continue it with this database's content" +
                        takeover);
    case Lineage::kRefuseRestore:
      return Status(Code::kConflict,
                    store_->url() + " holds the history of " + claim.path + "; " + place_.database +
                        " is a copy that was restored from it, and nothing was written. Use another prefix, or, if the "
                        "copy is to go on in its place" +
                        takeover);
    case Lineage::kRefuseCopy:
      return Status(Code::kConflict,
                    store_->url() + " has gone on since " + place_.folder + " was copied" + where + ": it is at TXID " +
                        std::to_string(head.txid) + ", this copy knows TXID " + std::to_string(acknowledged) +
                        "; nothing was written. Use another prefix, or, if this copy is the one to keep" + takeover);
    case Lineage::kContinueCopy:
      events_.Add("copy", "this folder is a copy: the history was written by " +
                              (claim.any ? claim.text : "an unknown folder") + ", from now on by " + place_.database +
                              " on " + host + ". Nothing newer lies at " + store_->url() +
                              ". Whichever of the two appends next keeps it, the other one is fenced");
      break;
    case Lineage::kBehind:
      events_.Add("resync", store_->url() + " is at TXID " + std::to_string(head.txid) +
                                ", written by this folder before: the state here is older (a power loss)");
      break;
    default:
      break;
  }
  return lineage;
}

// Continues the history that ends with `head`, if it is this database's.
Status Engine::AdoptHead(const Id& generation, const Id& newest, const ReplicaHead& head, const Known& known) {
  const SegmentHeader& h = head.last.header;
  const SegmentTrailer& t = head.last.trailer;
  PageTable scanned;
  REPLICA_ASSIGN(const Lineage lineage, LineageOf(generation, head, known, &scanned));
  if (lineage == Lineage::kFenced) {
    REPLICA_ASSIGN(const Claim claim, ReadClaim());
    Fence(claim.any ? "another writer, " + claim.text + ", since this database last uploaded" : "another writer");
    return Ok();
  }
  const bool knows = known.same_url && state_.database == h.database && state_.generation == generation;
  const bool at_head = known.table_valid && state_.txid == head.txid && state_.checksum == t.checksum_after;
  if (head.end || source_->page_size() != h.page_size) {
    if (!head.end) events_.Add("generation", "the replica's page size is another: a new generation begins");
    // The claim goes with the history. It is a proof of lineage, so the folder that had it until now must not keep it.
    // A copy claims only after it has appended, and the end of the log is what it appends.
    const ObjectBody claim = ObjectBody::FromBytes(ClaimText());
    if (lineage != Lineage::kContinue && lineage != Lineage::kContinueCopy)
      REPLICA_TRY(store_->Put(kClaimKey, claim, false));
    if (!head.end) REPLICA_TRY(EndGeneration(generation, head));
    if (lineage == Lineage::kContinueCopy) REPLICA_TRY(store_->Put(kClaimKey, claim, false));
    return NewGeneration(newest);
  }
  bool damaged = false;
  const bool same_content = scanned.checksum() == t.checksum_after && scanned.pages() == t.pages_after;
  if (!knows && same_content) {
    table_ = std::move(scanned);
  } else if (!knows || !at_head) {
    REPLICA_ASSIGN(damaged, RebuildTable(generation, head));
  }
  const bool as_before = lineage == Lineage::kContinue;
  if (!as_before) state_.writer = RandomNumber();
  state_.claim_due = lineage == Lineage::kContinueCopy;
  // A copy claims the place once it has appended: until then the other one may.
  if (lineage == Lineage::kContinueNew || lineage == Lineage::kBehind)
    REPLICA_TRY(store_->Put(kClaimKey, ObjectBody::FromBytes(ClaimText()), false));
  // A restored file is at the head, if nobody has written to it since.
  const bool unchanged = knows && at_head && state_.stamp != FileStamp{} && state_.boot == BootHash();
  state_.database = h.database;
  state_.generation = generation;
  state_.folder_identity = state_file_.FolderIdentity();
  state_.page_size = h.page_size;
  state_.txid = state_.acknowledged_txid = head.txid;
  state_.sequence = state_.acknowledged_sequence = head.sequence;
  state_.checksum = t.checksum_after;
  state_.time = head.last.commits.empty() ? 0 : head.last.commits.back().time;
  state_.snapshot_txid = damaged ? 0 : head.snapshot_txid;
  state_.snapshot_bytes = head.snapshot_bytes;
  state_.snapshot_time = clock_.WallMicros();
  state_.log_bytes = head.log_bytes;
  state_.restored = state_.behind = state_.fenced = state_.partial = false;
  state_.url = store_->url();
  if (!unchanged) state_.wal = {};
  REPLICA_TRY(state_file_.SaveAll(&state_, table_));
  // Of an earlier history.
  REPLICA_TRY(ClearSpool());
  if (unchanged) return AttachLocal();
  attached_ = true;
  LoseTrack(knows ? "the replica was restored or continued elsewhere" : "this folder did not know the replica");
  events_.Add("attach", "to the history of " + store_->url() + " at TXID " + std::to_string(state_.txid));
  Acknowledge();
  return Ok();
}

// Removes the segments of an earlier history; the journal is ResetJournal's.
Status Engine::ClearSpool() {
  REPLICA_ASSIGN(auto names, ListFiles(place_.folder + "/spool"));
  for (const std::string& name : names)
    if (IsSegmentName(name)) REPLICA_TRY(RemoveFile(place_.folder + "/spool/" + name));
  control_->spool_bytes.store(0);
  return Ok();
}

void Engine::Fence(const std::string& who) {
  control_->active.store(0);
  source_->LetGo();
  const bool told = std::exchange(state_.fenced, true);
  fenced_ = attached_ = true;
  if (!told) (void)Save({});
  if (!told) events_.Add("fenced", store_->url() + " has " + who);
  PublishPosition();
  SetError(Status(Code::kConflict,
                  store_->url() + " has " + who +
                      "; nothing is uploaded. If this database is the one to keep, attach it with the option "
                      "\"takeover\": true (REPLICA_TAKEOVER=true)"));
  SetState();
}

// The page hashes at the replica's head, from its content.
Result<bool> Engine::RebuildTable(const Id& generation, const ReplicaHead& head) {
  REPLICA_ASSIGN(TemporaryCopy copy, TemporaryCopy::In(place_.folder));
  events_.Add("resync", "reading the replica, to find what differs");
  RestoreTarget target;
  target.generation = generation;
  REPLICA_ASSIGN(RestoredDatabase restored, copy.Restore(store_.get(), target, {}));
  if (restored.txid != head.txid || restored.checksum != head.last.trailer.checksum_after)
    return Status(Code::kUnavailable, store_->url() + ": its history reads up to TXID " +
                                          std::to_string(restored.txid) + ", and not up to TXID " +
                                          std::to_string(head.txid) + ": somebody writes there" +
                                          (restored.warning.empty() ? "" : ", or " + restored.warning));
  if (!restored.warning.empty()) events_.Add("replica", restored.warning + ". A snapshot is made");
  table_ = std::move(restored.table);
  return !restored.warning.empty();
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
  return FormatClaim(state_file_.FolderIdentity(), place_.database, host);
}

Result<Claim> Engine::ReadClaim() {
  auto claim = store_->Get(kClaimKey, 0, kClaimLimit);
  if (claim.status().code() == Code::kNotFound) return Claim();
  if (!claim.ok()) return claim.status();
  return ParseClaim(*claim);
}

// Two databases that find the same URL empty at the same time must not both begin there. The claim names a replica
// folder, which a crash between the claim and the first state does not change.
Status Engine::ClaimUrl() {
  // The folder that is claimed for must outlive a power loss.
  REPLICA_TRY(SyncFolder(place_.folder));
  REPLICA_TRY(SyncFolder(ParentFolder(place_.folder)));
  const ObjectBody mine = ObjectBody::FromBytes(ClaimText());
  const bool may_replace = options_.takeover || !options_.fencing;
  Status status = store_->Put(kClaimKey, mine, !may_replace);
  if (status.code() != Code::kExists) return status;
  REPLICA_ASSIGN(const Claim theirs, ReadClaim());
  if (theirs.any && state_file_.IsFolder(theirs.identity)) return Ok();
  // Its folder was removed, or lost in a power loss, before anything was restorable.
  char host[256] = {};
  (void)::gethostname(host, sizeof host - 1);
  if (theirs.path == place_.database && theirs.host == host) return store_->Put(kClaimKey, mine, false);
  return {Code::kConflict, store_->url() + " is claimed by another database (" + theirs.text +
                               "); nothing was written. Use another prefix, or, if that database is gone, attach with "
                               "the option \"takeover\": true (REPLICA_TAKEOVER=true)"};
}

// Whoever still appends to the generation meets the object and is fenced. Only then may another generation begin:
// otherwise that writer's commits would go on being acknowledged where no reader looks.
Status Engine::EndGeneration(const Id& generation, const ReplicaHead& head) {
  if (head.end) return Ok();
  SegmentHeader end = Header();
  end.generation = generation;
  end.page_size = head.any ? head.last.header.page_size : source_->page_size();
  if (head.any) end.database = head.last.header.database;
  end.sequence = head.sequence + 1;
  end.min_txid = head.txid + 1;
  Status status = store_->Put(LogKey(generation, end.sequence),
                              ObjectBody::FromBytes(EncodeEnd(end, clock_.WallMicros())), options_.fencing);
  if (status.code() != Code::kExists) return status;
  REPLICA_ASSIGN(const ReplicaHead now, ReadHead(store_.get(), generation));
  if (now.end) return Ok();
  return {Code::kUnavailable, ObjectUrl(*store_, LogKey(generation, end.sequence)) +
                                  " was appended by another writer just now; looking again"};
}

Status Engine::NewGeneration(const Id& newest) {
  REPLICA_ASSIGN(const Id generation, NewGenerationId(clock_.WallMicros(), newest));
  REPLICA_TRY(ProbeFencing(generation));
  EngineState fresh;
  fresh.revision = state_.revision;
  fresh.database = state_.database == Id{} ? RandomId() : state_.database;
  fresh.generation = generation;
  fresh.writer = RandomNumber();
  fresh.folder_identity = state_file_.FolderIdentity();
  fresh.file = source_->file();
  fresh.page_size = source_->page_size();
  fresh.txid = 1;
  fresh.acknowledged_txid = 0;
  fresh.url = store_->url();
  REPLICA_ASSIGN(PageTable table, ScanAll());
  REPLICA_TRY(ClearSpool());
  fresh.checksum = table.checksum();
  fresh.time = clock_.WallMicros();
  fresh.wal = source_->position();
  REPLICA_TRY(state_file_.SaveAll(&fresh, table));
  state_ = fresh;
  table_ = std::move(table);
  queue_.clear();
  needs_resync_ = false;
  attached_ = true;
  control_->acknowledged_txid.store(0);
  events_.Add("generation", HexEncode(generation) + " begins with " + std::to_string(table_.pages()) + " pages");
  PublishPosition();
  return Ok();
}

}  // namespace replica

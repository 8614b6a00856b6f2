#include "sql/report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/byte_lock.h"
#include "base/clock.h"
#include "ext/hub.h"
#include "ext/wait.h"
#include "uploader/replica.h"
#include "vfs/shim.h"

namespace replica {
namespace {

constexpr int64_t kVerifyWait = 60000000;     // µs for the leader's part of a verify, and besides, where it reads …
constexpr int64_t kVerifyBytesPerMicro = 10;  // … or stores the whole database, its size at this rate at least
constexpr int64_t kLeaderLook = 1000000;      // µs
constexpr int64_t kSnapshotWait = 600000000;  // µs
constexpr int kQuickTries = 5;

// True while some process holds it.
bool IsByteLocked(const std::string& folder, LockByte byte) {
  auto fd = OpenOwnFile(LockPath(folder), O_RDWR);
  return fd.ok() && IsLocked(fd->get(), byte);
}

Id LoadId(const std::atomic<uint64_t> (&words)[2]) {
  Id id;
  const uint64_t w[2] = {words[0].load(), words[1].load()};
  std::memcpy(id.data(), w, 16);
  return id;
}

struct Verified {
  std::shared_ptr<Database> database;
  std::shared_ptr<Store> store;
  ControlBlock* control = nullptr;
  Id generation{};
};

// Waits for the leader; `progress` may call it off.
Status Await(ControlBlock* c, int64_t micros, const VerifyProgress& progress, const std::function<bool()>& done) {
  bool called_off = false;
  REPLICA_TRY(WaitFor(c, micros, [&] {
    called_off = progress && !progress(0, 0);
    return called_off || done();
  }));
  return called_off ? Status(Code::kInterrupted, "called off") : Ok();
}

// What is missing before the newest snapshot concerns earlier states only: a warning.
Status LookForHoles(const Verified& v, Json* report, Json* errors) {
  REPLICA_ASSIGN(auto log, ListLog(v.store.get(), v.generation, 0));
  REPLICA_ASSIGN(auto snapshots, ListSnapshots(v.store.get(), v.generation));
  uint64_t included = 0;  // the last log segment that the newest snapshot makes unnecessary
  if (!snapshots.empty()) {
    const std::string key = SnapshotKey(v.generation, snapshots.back().txid);
    REPLICA_ASSIGN(const Segment ends, ReadSegmentEnds(v.store.get(), key, snapshots.back().size));
    included = ends.header.sequence;
  }
  Json warnings = Json::Array();
  uint64_t expected = log.empty() ? 0 : std::min(log.front().sequence, included + 1);
  for (const LogObject& entry : log) {
    if (entry.sequence != expected) {
      const std::string hole = "log segment " + Hex16(expected) + " is missing: states from it on cannot be restored";
      if (entry.sequence - 1 > included) {
        errors->push_back(hole + "; a snapshot (`replica snapshot`) makes the present one restorable again");
      } else {
        warnings.push_back(hole + ", as far as the next snapshot");
      }
    }
    expected = entry.sequence + 1;
  }
  (*report)["log_segments"] = log.size();
  (*report)["warnings"] = warnings;
  return Ok();
}

Status Quick(const Verified& v, Json* report, Json* errors) {
  // Under load the database moves on between two looks: then look again.
  for (int attempt = 0; attempt < kQuickTries; attempt++) {
    REPLICA_TRY(WaitSynced(v.control, kVerifyWait));
    const uint64_t txid = v.control->captured_txid.load(std::memory_order_acquire);
    const uint64_t checksum = v.control->captured_checksum.load();
    REPLICA_ASSIGN(ReplicaHead head, ReadHead(v.store.get(), v.generation));
    const bool moved = v.control->captured_txid.load() != txid || head.txid > txid;
    if (moved && attempt + 1 < kQuickTries) continue;
    (*report)["txid"] = txid;
    (*report)["replica_txid"] = head.txid;
    (*report)["checksum"] = Hex16(checksum);
    if (head.snapshot_txid == 0) {
      errors->push_back(v.store->url() + ": generation " + HexEncode(v.generation) +
                        " has no snapshot, so nothing can be restored: run SELECT replica_snapshot()");
    } else if (head.txid < txid) {
      errors->push_back("the replica ends at TXID " + std::to_string(head.txid) + ", the database is at " +
                        std::to_string(txid));
    } else if (head.txid == txid && head.last.trailer.checksum_after != checksum) {
      errors->push_back("the replica's checksum at TXID " + std::to_string(txid) + " is " +
                        Hex16(head.last.trailer.checksum_after) + ", the database's is " + Hex16(checksum));
    }
    return LookForHoles(v, report, errors);
  }
  return Ok();
}

// Waits for the leader's part of a full verify, which takes the longer the larger the database is. Ends after
// kVerifyWait all the same when nobody leads.
class FullWait {
 public:
  FullWait(const Verified& v, const std::string& path, const VerifyProgress& progress)
      : v_(v), progress_(progress), led_at_(SystemClock().SteadyMicros()) {
    for (const char* suffix : {"", "-wal"}) {
      auto size = FileSize(path + suffix);
      if (size.ok()) micros_ += static_cast<int64_t>(*size) / kVerifyBytesPerMicro;
    }
  }

  Status Synced() {
    return Told(WaitSynced(v_.control, micros_, [this] { return GoOn(0, 0); }));
  }
  Status Until(const std::function<bool()>& done) {
    return Told(Await(
        v_.control, micros_, [this](uint64_t done_bytes, uint64_t planned) { return GoOn(done_bytes, planned); },
        done));
  }

 private:
  bool GoOn(uint64_t done, uint64_t planned) {
    const int64_t now = SystemClock().SteadyMicros();
    if (now - looked_at_ >= kLeaderLook) {
      looked_at_ = now;
      if (IsByteLocked(v_.database->folder(), LockByte::kLeader)) led_at_ = now;
    }
    gone_ = now - led_at_ > kVerifyWait;
    return !gone_ && (!progress_ || progress_(done, planned));
  }
  Status Told(Status status) const {
    if (!gone_) return status;
    return {Code::kTimeout, "no process uploads this database; the verify needs one"};
  }

  const Verified& v_;
  const VerifyProgress& progress_;
  int64_t micros_ = kVerifyWait;
  int64_t led_at_;  // steady µs: when somebody was last seen to lead
  int64_t looked_at_ = 0;
  bool gone_ = false;
};

// A path as a part of a URI (https://sqlite.org/uri.html).
std::string UriEscaped(const std::string& path) {
  std::string out;
  for (const char c : path) out += c == '%' ? "%25" : c == '?' ? "%3f" : c == '#' ? "%23" : std::string(1, c);
  return out;
}

// PRAGMA integrity_check on a restored file, on a connection of our own. Nobody changes the file, so no WAL and no
// wal-index are made beside it, which a kill could leave.
std::string IntegrityCheck(const std::string& path) {
  OwnConnectionScope own;
  sqlite3* db = nullptr;
  std::string answer = "cannot open it";
  const std::string uri = "file:" + UriEscaped(path) + "?immutable=1";
  if (sqlite3_open_v2(uri.c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, nullptr) == SQLITE_OK)
    answer = PragmaText(db, "main", "integrity_check");
  if (answer.empty() && db != nullptr) answer = sqlite3_errmsg(db);
  sqlite3_close(db);
  return answer;
}

Status Full(const Verified& v, const std::string& path, const VerifyProgress& progress, Json* report, Json* errors) {
  ControlBlock* c = v.control;
  FullWait wait(v, path, progress);
  // The leader ends a segment at a state that it reads back from the database file and WAL.
  const uint32_t ticket = c->mark_wanted.fetch_add(1) + 1;
  WakeLeader(c);
  REPLICA_TRY(
      wait.Until([&] { return static_cast<int32_t>(c->mark_done.load(std::memory_order_acquire) - ticket) >= 0; }));
  const uint64_t txid = c->mark_txid.load();
  const uint64_t checksum = c->mark_checksum.load();
  (*report)["txid"] = txid;
  (*report)["checksum"] = Hex16(checksum);
  if (c->mark_expected.load() != checksum) {
    errors->push_back("the database reads as " + Hex16(checksum) + ", its commits lead to " +
                      Hex16(c->mark_expected.load()) + "; a resync sends the difference");
    return Ok();
  }
  REPLICA_TRY(wait.Until([&] { return c->acknowledged_txid.load() >= txid; }));
  REPLICA_ASSIGN(TemporaryCopy copy, TemporaryCopy::In(v.database->folder()));
  RestoreTarget target;
  target.txid = txid;
  target.generation = v.generation;
  auto restored = copy.Restore(v.store.get(), target, progress);
  if (!restored.ok()) {
    if (restored.status().code() != Code::kCorrupt && restored.status().code() != Code::kNotFound)
      return restored.status();
    errors->push_back(restored.status().message());
    return Ok();
  }
  if (!restored->warning.empty()) errors->push_back(restored->warning);
  (*report)["restored_checksum"] = Hex16(restored->checksum);
  (*report)["pages"] = restored->table.pages();
  (*report)["objects"] = restored->objects;
  if (restored->checksum != checksum)
    errors->push_back("the restore of TXID " + std::to_string(txid) + " has the checksum " + Hex16(restored->checksum) +
                      ", the database had " + Hex16(checksum));
  const std::string integrity = IntegrityCheck(copy.path());
  (*report)["integrity_check"] = integrity;
  if (integrity != "ok") errors->push_back("integrity_check of the restore of " + path + ": " + integrity);
  return LookForHoles(v, report, errors);
}

}  // namespace

Result<std::string> SchemaPath(sqlite3* db, const std::string& schema) {
  const char* name = sqlite3_db_filename(db, schema.c_str());
  if (name == nullptr)
    return Status(Code::kInvalidArgument, "there is no database \"" + schema + "\" on this connection");
  if (*name == 0)
    return Status(Code::kInvalidArgument,
                  "database \"" + schema + "\" has no file (in memory or temporary): nothing to replicate");
  std::string path = name;
  // A connection that has not read yet has not opened the WAL, which is what starts replication.
  PragmaText(db, schema, "schema_version");
  return path;
}

Status NotReplicated(const std::string& path) {
  const std::string trouble = Hub::Get().Trouble(path);
  return {Code::kInvalidArgument,
          path + " is not replicated: " + (trouble.empty() ? Hub::Get().WhyNot(path) : trouble)};
}

namespace {

// Commits that a tap has seen and capture has not. The counts are SQLite's, which begin anew with each life of the
// wal-index: when they cannot be compared, at least one.
uint64_t Uncaptured(const ControlBlock* c) {
  auto counted = [c](const std::atomic<uint32_t>& changes) {
    const auto waiting = static_cast<int32_t>(changes.load() - c->captured_changes.load());
    return waiting >= 0 && waiting < 100000000 ? int64_t{waiting} : int64_t{-1};
  };
  // Of processes without libreplica, as the leader has seen them.
  const int64_t seen = c->observed_time.load() == 0 ? 0 : std::max<int64_t>(counted(c->observed_changes), 0);
  if (c->committed.load() == c->captured_commit.load()) return static_cast<uint64_t>(seen);
  const int64_t tapped = counted(c->committed_changes);
  return static_cast<uint64_t>(tapped < 0 ? 1 : std::max(tapped, seen));
}

}  // namespace

Json StatusReport(const std::string& path) {
  Hub& hub = Hub::Get();
  Json out;
  out["database"] = path;
  const std::shared_ptr<Service> service = hub.FindService(path);
  const std::shared_ptr<Database> database = service != nullptr ? service->database() : hub.FindDatabase(path);
  if (database == nullptr) {
    const std::string trouble = hub.Trouble(path);
    out["state"] = trouble.empty() ? "off" : "error";
    out["message"] = trouble.empty() ? hub.WhyNot(path) : trouble;
    return out;
  }
  if (database->Stale()) {
    out["state"] = "error";
    out["message"] =
        database->folder() + " was removed while it was in use: attach again, or close the database and open it";
    return out;
  }
  if (!database->Captures(FileIdOf(path))) {
    // The leader attaches what is there now.
    WakeLeader(database->control());
    out["state"] = "resync";
    out["message"] = "another file is at " + path + " than the one that was replicated so far, or none: " +
                     (IsByteLocked(database->folder(), LockByte::kLeader) ? "it is being compared"
                                                                          : "it is compared when it is opened next");
    return out;
  }
  const ControlBlock* c = database->control();
  const bool led = IsByteLocked(database->folder(), LockByte::kLeader);
  const auto state = led || static_cast<ReplicaState>(c->state.load()) == ReplicaState::kFenced ||
                             static_cast<ReplicaState>(c->state.load()) == ReplicaState::kError
                         ? static_cast<ReplicaState>(c->state.load())
                         : ReplicaState::kOff;
  const uint64_t captured = c->captured_txid.load(std::memory_order_acquire);
  const uint64_t acknowledged = c->acknowledged_txid.load();
  const uint64_t committed = captured + Uncaptured(c);
  const int64_t now = SystemClock().WallMicros();
  // The oldest commit that is captured and not acknowledged, else the oldest that is not captured: kept, or in the ring
  // of commit times.
  int64_t since = LoadTime(c->unacknowledged_since);
  const uint32_t oldest = c->oldest_changes.load(std::memory_order_acquire) - c->captured_changes.load();
  if (since == 0 && committed > captured && c->committed.load() == c->captured_commit.load()) {
    since = LoadTime(c->observed_time);
  } else if (since == 0 && oldest != 0 && oldest <= committed - captured && LoadTime(c->oldest_time) != 0) {
    since = LoadTime(c->oldest_time);
  } else if (since == 0 && committed > captured) {
    const uint32_t next = c->time_next.load(std::memory_order_acquire);
    const uint64_t uncaptured = std::min<uint64_t>({committed - captured, kCommitTimes, next});
    since = LoadTime(c->times[(next - static_cast<uint32_t>(uncaptured)) % kCommitTimes].time);
  }
  const uint64_t spool = c->spool_bytes.load() + c->journal_total.load();
  auto time_or_null = [](int64_t micros) { return micros == 0 ? Json() : Json(FormatTime(micros)); };
  out["replica"] = LoadText(c->url);
  const Id generation = LoadId(c->generation);
  out["generation"] = generation == Id{} ? Json() : Json(HexEncode(generation));
  out["state"] = StateName(state);
  // Until a leader has found its place in the history nobody can say how many commits wait, or since when.
  const bool known = captured != 0;
  auto known_or_null = [known](auto value) { return known ? Json(value) : Json(); };
  out["txid"] = Json::Of("committed", known_or_null(committed), "captured", captured, "acknowledged", acknowledged);
  out["lag"] = Json::Of("txids", known_or_null(committed > acknowledged ? committed - acknowledged : uint64_t{0}),
                        "bytes", spool, "seconds",
                        known_or_null(since == 0 || now < since ? 0.0 : static_cast<double>(now - since) / 1e6));
  out["leader_pid"] = led && c->leader_pid.load() != 0 ? Json(c->leader_pid.load()) : Json();
  out["uploader"] = !led ? Json() : c->leader_dedicated.load() != 0 ? "process" : "thread";
  out["last_acknowledged"] = time_or_null(LoadTime(c->acknowledged_time));
  out["last_error"] = c->error_since.load() == 0 ? Json() : Json(LoadText(c->last_error));
  out["error_since"] = time_or_null(LoadTime(c->error_since));
  out["puts"] = c->puts.load();
  out["put_errors"] = c->put_errors.load();
  out["bytes_raw"] = c->bytes_raw.load();
  out["bytes_stored"] = c->bytes_stored.load();
  out["spool_bytes"] = spool;
  out["commit_wakes"] = c->commit_wakes.load();
  return out;
}

Result<uint64_t> MakeSnapshot(const std::string& path, const VerifyProgress& progress) {
  auto database = Hub::Get().FindDatabase(path);
  if (database == nullptr) return NotReplicated(path);
  ControlBlock* c = database->control();
  const uint32_t ticket = c->snapshot_wanted.fetch_add(1) + 1;
  WakeLeader(c);
  REPLICA_TRY(
      Await(c, kSnapshotWait, progress, [&] { return static_cast<int32_t>(c->snapshot_done.load() - ticket) >= 0; }));
  return c->acknowledged_txid.load();
}

Json RestoreReport(const std::string& path, const std::string& url, const RestoredDatabase& restored) {
  Json report = Json::Of("path", path, "replica", url, "generation", HexEncode(restored.generation), "txid",
                         restored.txid, "time", FormatTime(restored.time), "page_size", restored.page_size, "pages",
                         restored.table.pages(), "checksum", Hex16(restored.checksum), "objects", restored.objects);
  if (!restored.warning.empty()) report["warning"] = restored.warning;
  return report;
}

Json HistoryReport(const Store& store, const HistoryEntry& e) {
  return Json::Of("kind", e.snapshot ? "snapshot" : "log", "generation", HexEncode(e.generation), "sequence",
                  e.sequence, "min_txid", e.min_txid, "max_txid", e.max_txid, "restorable", e.folded ? "last" : "all",
                  "first_time", FormatTime(e.first_time), "last_time", FormatTime(e.last_time), "pages", e.pages,
                  "bytes", e.bytes, "object", ObjectUrl(store, e.key));
}

Json ClockStepsReport(const History& history) {
  Json steps = Json::Array();
  for (const ClockStep& step : history.clock_steps)
    steps.push_back(Json::Of("generation", HexEncode(step.generation), "txid", step.txid, "from", FormatTime(step.from),
                             "to", FormatTime(step.to)));
  return steps;
}

Json HolesReport(const History& history) {
  Json holes = Json::Array();
  for (const HistoryHole& hole : history.holes)
    holes.push_back(Json::Of("generation", HexEncode(hole.generation), "first", hole.first, "last", hole.last));
  return holes;
}

Result<Json> VerifyReport(const std::string& path, const std::string& depth, const VerifyProgress& progress) {
  Verified v;
  v.database = Hub::Get().FindDatabase(path);
  if (v.database == nullptr) return NotReplicated(path);
  REPLICA_ASSIGN(v.store, Hub::Get().StoreFor(path));
  v.control = v.database->control();
  Json report;
  Json errors = Json::Array();
  report["ok"] = false;
  report["depth"] = depth;
  report["database"] = path;
  report["replica"] = v.store->url();
  if (depth != "quick" && depth != "full" && depth != "objects")
    return Status(Code::kInvalidArgument, "verify depth \"" + depth + "\": give quick, full or objects");
  // Of a first upload a full verify waits for the end.
  if (depth == "full") {
    REPLICA_TRY(FullWait(v, path, progress).Synced());
  } else {
    REPLICA_TRY(WaitSynced(v.control, kVerifyWait, [&] { return !progress || progress(0, 0); }));
  }
  v.generation = LoadId(v.control->generation);
  report["generation"] = HexEncode(v.generation);
  if (depth == "quick") {
    REPLICA_TRY(Quick(v, &report, &errors));
  } else if (depth == "full") {
    REPLICA_TRY(Full(v, path, progress, &report, &errors));
  } else {
    REPLICA_ASSIGN(ObjectsReport objects, VerifyObjects(v.store.get(), v.generation, progress));
    report["objects"] = objects.objects;
    report["bytes"] = objects.bytes;
    for (const std::string& error : objects.errors) errors.push_back(error);
    report["warnings"] = objects.warnings;
  }
  report["ok"] = errors.empty();
  report["errors"] = errors;
  return report;
}

}  // namespace replica

#include "sql/functions.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "config/parse.h"
#include "ext/hub.h"
#include "ext/wait.h"
#include "sql/report.h"
#include "vfs/shim.h"

namespace replica {
namespace {

constexpr int64_t kDefaultSyncTimeout = 60000;  // ms

// The one place where a Status becomes an SQLite code and message.
void ReturnError(sqlite3_context* context, const Status& status) {
  // The text first: setting it sets the code to SQLITE_ERROR, and setting the code keeps a text that is there.
  sqlite3_result_error(context, ("libreplica: " + status.message()).c_str(), -1);
  if (status.code() == Code::kTimeout) sqlite3_result_error_code(context, SQLITE_BUSY);
  if (status.code() == Code::kFull) sqlite3_result_error_code(context, SQLITE_FULL);
  if (status.code() == Code::kInterrupted) sqlite3_result_error_code(context, SQLITE_INTERRUPT);
}

void ReturnText(sqlite3_context* context, const std::string& text) {
  sqlite3_result_text(context, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
}

// The text of argument `i`, or `missing` when it is not given or NULL. Anything that is not a text is a mistake, and a
// text with a NUL in it would mean another path than the one that a person reads.
Result<std::string> TextArgument(int argc, sqlite3_value** argv, int i, const std::string& missing) {
  if (i >= argc || sqlite3_value_type(argv[i]) == SQLITE_NULL) return missing;
  const std::string which = "argument " + std::to_string(i + 1);
  if (sqlite3_value_type(argv[i]) != SQLITE_TEXT) return Status(Code::kInvalidArgument, which + " is not a text");
  const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(argv[i]));
  if (text == nullptr) return Status(Code::kInternal, "out of memory");
  std::string out(text, static_cast<size_t>(sqlite3_value_bytes(argv[i])));
  if (out.find('\0') != std::string::npos) return Status(Code::kInvalidArgument, which + " holds a NUL character");
  return out;
}

bool BeginsWithPragma(const char* sql) {
  constexpr char kByteOrderMark[] = "\xef\xbb\xbf";  // a space to SQLite, anywhere
  if (sql == nullptr) return false;
  for (;;) {
    while (*sql == ' ' || *sql == '\t' || *sql == '\n' || *sql == '\r' || *sql == '\f' || *sql == ';') sql++;
    if (std::strncmp(sql, kByteOrderMark, 3) == 0) {
      sql += 3;
      continue;
    }
    const char* end = nullptr;
    if (std::strncmp(sql, "--", 2) == 0) {
      end = std::strchr(sql, '\n');
    } else if (std::strncmp(sql, "/*", 2) == 0) {
      end = std::strstr(sql + 2, "*/");
      if (end != nullptr) end++;
    } else {
      return sqlite3_strnicmp(sql, "PRAGMA", 6) == 0;
    }
    if (end == nullptr) return false;
    sql = end + 1;
  }
}

// SQLITE_DIRECTONLY is not obeyed in CHECK constraints before SQLite 3.50: a database file that somebody else has made
// could call the function, in an INSERT or in the PRAGMA quick_check with which one looks at such a file first. So the
// functions that do something refuse while a statement of the connection is at work that could check a constraint.
Status CheckCalledDirectly(sqlite3* db) {
  constexpr int kObeysDirectOnly = 3050000;
  if (sqlite3_libversion_number() >= kObeysDirectOnly) return Ok();
  for (sqlite3_stmt* s = sqlite3_next_stmt(db, nullptr); s != nullptr; s = sqlite3_next_stmt(db, s))
    if (sqlite3_stmt_busy(s) != 0 && (sqlite3_stmt_readonly(s) == 0 || BeginsWithPragma(sqlite3_sql(s))))
      return {Code::kPermission,
              "this function is called by SELECT alone, while no statement of the connection is writing or checking: "
              "before SQLite 3.50 it could not tell you from a CHECK constraint"};
  return Ok();
}

// Runs a function's body: C at the edge, no exception crosses it. `direct`: it does something, so only a person's own
// SELECT may call it.
template <typename Body>
void Guarded(sqlite3_context* context, bool direct, const Body& body) noexcept {
  try {
    Status status = direct ? CheckCalledDirectly(sqlite3_context_db_handle(context)) : Ok();
    if (status.ok()) status = body();
    if (!status.ok()) ReturnError(context, status);
  } catch (const std::bad_alloc&) {
    sqlite3_result_error_nomem(context);  // which takes no memory
  } catch (const std::exception& e) {
    sqlite3_result_error(context, e.what(), -1);
  }
}

// Waits end when the connection is interrupted, where SQLite can tell (3.41).
VerifyProgress GoOn(sqlite3_context* context) {
  constexpr int kHasIsInterrupted = 3041000;
  if (sqlite3_libversion_number() < kHasIsInterrupted) return {};
#if SQLITE_VERSION_NUMBER >= 3041000
  const auto is_interrupted = sqlite3_api->is_interrupted;
#else
  // The headers may be older than the SQLite that loads us: its table of functions has this one behind the last
  // that 3.40 knows (https://sqlite.org/src/file/src/sqlite3ext.h; the table only ever grows).
  struct Table341 {
    sqlite3_api_routines known;
    int (*is_interrupted)(sqlite3*);
  };
  const auto is_interrupted = reinterpret_cast<const Table341*>(sqlite3_api)->is_interrupted;
#endif
  sqlite3* db = sqlite3_context_db_handle(context);
  return [db, is_interrupted](uint64_t, uint64_t) { return is_interrupted(db) == 0; };
}

// What this connection committed is in the file that it has open. Nothing may be said of the one that is at its path
// now.
Status CheckNotMoved(sqlite3* db, const std::string& schema, const std::string& path) {
  int moved = 0;
  if (sqlite3_file_control(db, schema.c_str(), SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK || moved == 0) return Ok();
  return {Code::kConflict,
          "the file that this connection has open is not at " + path +
              " any more (moved, removed or replaced): its commits are in no replica from then on. Close "
              "the connection and open the database again"};
}

extern "C" {

static void VersionFunction(sqlite3_context* context, int, sqlite3_value**) noexcept {
  sqlite3_result_text(context, LIBREPLICA_VERSION, -1, SQLITE_STATIC);
}

// replica_attach(url [, options])
static void AttachFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    sqlite3* db = sqlite3_context_db_handle(context);
    REPLICA_ASSIGN(const std::string url, TextArgument(argc, argv, 0, ""));
    REPLICA_ASSIGN(const std::string json, TextArgument(argc, argv, 1, "{}"));
    AttachOptions options = Hub::Get().config().options;
    REPLICA_TRY(ApplyJson(json, &options));
    REPLICA_TRY(ParseUrl(url).status());
    REPLICA_ASSIGN(std::string path, SchemaPath(db, options.schema));
    REPLICA_TRY(Hub::Get().OpenStore(url, options).status());
    if (const std::string why = WhyUntouched(db, options.schema.c_str()); !why.empty())
      return {Code::kUnsupported, path + " cannot be replicated: " + why};
    if (sqlite3_db_readonly(db, options.schema.c_str()) == 1)
      return {Code::kUnsupported, path + " is open for reading only on this connection, which replicates nothing"};
    if (PragmaText(db, options.schema, "locking_mode") == "exclusive")
      return {
          Code::kUnsupported,
          path +
              " is in EXCLUSIVE locking mode, in which commits cannot be seen: run PRAGMA locking_mode=NORMAL first"};
    const std::string mode = PragmaText(db, options.schema, "journal_mode=WAL");
    if (mode != "wal")
      return {
          Code::kUnsupported,
          path + " cannot be put into WAL mode: it stays in \"" + mode + "\"" +
              (sqlite3_errcode(db) == SQLITE_OK ? "" : std::string(" (") + sqlite3_errmsg(db) + ")") +
              ". Close other connections and transactions, check that it is writable, and that this SQLite and its VFS "
              "know WAL mode (SQLITE_OMIT_WAL, unix-none, unix-dotfile and nolock=1 do not)"};
    PragmaText(db, options.schema, "schema_version");
    if (!AdoptConnection(db, options.schema.c_str()))
      return {Code::kUnsupported, path +
                                      " cannot be replicated: its file was opened by a VFS that libreplica does not "
                                      "know, below the connection's own"};
    REPLICA_TRY(Hub::Get().Attach(path, url, options));
    ReturnText(context, url);
    return Ok();
  });
}

// replica_detach([schema])
static void DetachFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    REPLICA_ASSIGN(const std::string schema, TextArgument(argc, argv, 0, "main"));
    REPLICA_ASSIGN(std::string path, SchemaPath(sqlite3_context_db_handle(context), schema));
    REPLICA_TRY(Hub::Get().Detach(path));
    sqlite3_result_int(context, 1);
    return Ok();
  });
}

// replica_status([schema])
static void StatusFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, false, [&]() -> Status {
    REPLICA_ASSIGN(const std::string schema, TextArgument(argc, argv, 0, "main"));
    REPLICA_ASSIGN(std::string path, SchemaPath(sqlite3_context_db_handle(context), schema));
    ReturnText(context, StatusReport(path).Dump());
    return Ok();
  });
}

// replica_sync([schema [, timeout_ms]])
static void SyncFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    REPLICA_ASSIGN(const std::string schema, TextArgument(argc, argv, 0, "main"));
    REPLICA_ASSIGN(std::string path, SchemaPath(sqlite3_context_db_handle(context), schema));
    int64_t timeout = kDefaultSyncTimeout;
    if (argc > 1 && sqlite3_value_type(argv[1]) != SQLITE_NULL) {
      timeout = sqlite3_value_type(argv[1]) == SQLITE_INTEGER ? sqlite3_value_int64(argv[1]) : -1;
    }
    if (timeout < 0 || timeout > INT64_C(1000000000))
      return {Code::kInvalidArgument, "replica_sync: the timeout is a whole number of milliseconds, 0 or more"};
    auto database = Hub::Get().FindDatabase(path);
    if (database == nullptr) return NotReplicated(path);
    REPLICA_TRY(CheckNotMoved(sqlite3_context_db_handle(context), schema, path));
    if (database->unserved()) Hub::Get().StartAgain(path);
    const VerifyProgress go_on = GoOn(context);
    Status synced =
        WaitSynced(database->control(), timeout * 1000, go_on ? [&] { return go_on(0, 0); } : std::function<bool()>());
    // Not replicated by this process: say what it is that it lacks.
    if (synced.code() == Code::kTimeout && Hub::Get().FindService(path) == nullptr)
      return synced.In(NotReplicated(path).message());
    REPLICA_TRY(std::move(synced));
    sqlite3_result_int64(context, static_cast<sqlite3_int64>(database->control()->acknowledged_txid.load()));
    return Ok();
  });
}

// replica_snapshot([schema])
static void SnapshotFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    REPLICA_ASSIGN(const std::string schema, TextArgument(argc, argv, 0, "main"));
    REPLICA_ASSIGN(std::string path, SchemaPath(sqlite3_context_db_handle(context), schema));
    REPLICA_TRY(CheckNotMoved(sqlite3_context_db_handle(context), schema, path));
    REPLICA_ASSIGN(const uint64_t txid, MakeSnapshot(path, GoOn(context)));
    sqlite3_result_int64(context, static_cast<sqlite3_int64>(txid));
    return Ok();
  });
}

// replica_verify([schema [, depth]])
static void VerifyFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    REPLICA_ASSIGN(const std::string schema, TextArgument(argc, argv, 0, "main"));
    REPLICA_ASSIGN(std::string path, SchemaPath(sqlite3_context_db_handle(context), schema));
    REPLICA_ASSIGN(const std::string depth, TextArgument(argc, argv, 1, "quick"));
    REPLICA_TRY(CheckNotMoved(sqlite3_context_db_handle(context), schema, path));
    REPLICA_ASSIGN(const Json report, VerifyReport(path, depth, GoOn(context)));
    ReturnText(context, report.Dump());
    return Ok();
  });
}

// replica_restore(url, path [, target])
static void RestoreFunction(sqlite3_context* context, int argc, sqlite3_value** argv) noexcept {
  Guarded(context, true, [&]() -> Status {
    REPLICA_ASSIGN(const std::string url, TextArgument(argc, argv, 0, ""));
    REPLICA_ASSIGN(const std::string given, TextArgument(argc, argv, 1, ""));
    // A TXID may be a number.
    std::string text;
    if (argc > 2 && sqlite3_value_type(argv[2]) == SQLITE_INTEGER) {
      text = std::to_string(sqlite3_value_int64(argv[2]));
    } else {
      REPLICA_ASSIGN(text, TextArgument(argc, argv, 2, "latest"));
    }
    for (const char* ending : {"-wal", "-shm", "-journal"})
      if (given.size() > std::strlen(ending) &&
          sqlite3_stricmp(given.c_str() + given.size() - std::strlen(ending), ending) == 0)
        return {Code::kInvalidArgument,
                "replica_restore: " + given + " is the name of a file that belongs to a database"};
    if (given.empty()) return {Code::kInvalidArgument, "replica_restore: give the path of the file to write"};
    REPLICA_ASSIGN(RestoreTarget target, ParseTarget(text));
    REPLICA_ASSIGN(auto store, Hub::Get().OpenStore(url, Hub::Get().config().options));
    std::error_code error;
    const std::string path = std::filesystem::absolute(given, error).lexically_normal().string();
    REPLICA_ASSIGN(RestoredDatabase restored, RestoreDatabase(store.get(), target, path, GoOn(context)));
    ReturnText(context, RestoreReport(path, url, restored).Dump());
    return Ok();
  });
}

}  // extern "C"

}  // namespace

int RegisterFunctions(sqlite3* db) {
  struct Function {
    const char* name;
    int least;
    int most;
    void (*body)(sqlite3_context*, int, sqlite3_value**);
    int flags;
  };
  static constexpr Function kFunctions[] = {
      {"replica_version", 0, 0, VersionFunction, SQLITE_INNOCUOUS},
      {"replica_attach", 1, 2, AttachFunction, SQLITE_DIRECTONLY},
      {"replica_detach", 0, 1, DetachFunction, SQLITE_DIRECTONLY},
      {"replica_status", 0, 1, StatusFunction, SQLITE_DIRECTONLY},
      {"replica_sync", 0, 2, SyncFunction, SQLITE_DIRECTONLY},
      {"replica_snapshot", 0, 1, SnapshotFunction, SQLITE_DIRECTONLY},
      {"replica_verify", 0, 2, VerifyFunction, SQLITE_DIRECTONLY},
      {"replica_restore", 2, 3, RestoreFunction, SQLITE_DIRECTONLY},
  };
  for (const Function& f : kFunctions) {
    for (int argc = f.least; argc <= f.most; argc++) {
      const int rc = sqlite3_create_function_v2(db, f.name, argc, SQLITE_UTF8 | f.flags, nullptr, f.body, nullptr,
                                                nullptr, nullptr);
      if (rc != SQLITE_OK) return rc;
    }
  }
  return SQLITE_OK;
}

}  // namespace replica

#include "cli/session.h"

#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/byte_lock.h"
#include "base/fs.h"
#include "cli/output.h"
#include "config/parse.h"
#include "ext/hub.h"
#include "ext/replica.h"
#include "uploader/state.h"
#include "vfs/database.h"
#include "vfs/wal_format.h"

namespace replica {
namespace {

constexpr int kMostLinks = 40;  // as the kernel

bool IsCompanion(const std::string& name) {
  for (const char* end : {"-wal", "-shm", "-journal"})
    if (name.size() > std::string(end).size() &&
        name.compare(name.size() - std::string(end).size(), std::string::npos, end) == 0)
      return true;
  return false;
}

void AddFromFolder(const DatabaseRule& rule, const std::string& folder, std::vector<std::string>* out) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    const std::string name = it->path().filename().string();
    if (it->is_directory(error)) {
      const bool ours = name.size() > 8 && name.compare(name.size() - 8, 8, "-replica") == 0;
      if (rule.recursive && !it->is_symlink(error) && !ours) AddFromFolder(rule, path, out);
    } else if (it->is_regular_file(error) && !IsCompanion(name) && rule.Fits(path)) {
      out->push_back(path);
    }
  }
}

void AddFromGlob(const std::string& pattern, std::vector<std::string>* out) {
  glob_t found{};
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; i++)
      if (!IsCompanion(found.gl_pathv[i]) && TrustLinks(found.gl_pathv[i]).ok())
        out->push_back(FullPath(found.gl_pathv[i]));
  ::globfree(&found);
}

}  // namespace

bool IsUrl(const std::string& text) {
  return text.find("://") != std::string::npos;
}

Result<std::unique_ptr<Session>> Session::Create(const std::string& file, bool dedicated) {
  Environment environment = ProcessEnvironment();
  if (!file.empty()) environment["REPLICA_CONFIG"] = file;
  REPLICA_ASSIGN(Config config, ReadConfig(environment));
  return Create(std::move(config), dedicated);
}

Result<std::unique_ptr<Session>> Session::Create(Config config, bool dedicated) {
  Config in_force = config;
  in_force.required = false;
  REPLICA_TRY(Hub::Get().Load(std::move(in_force), dedicated));
  InstallExtension();
  return std::unique_ptr<Session>(new Session(std::move(config)));
}

bool Session::lists_databases() const {
  return std::any_of(config_.rules.begin(), config_.rules.end(), [](const DatabaseRule& rule) {
    return !rule.path.empty() || !rule.folder.empty() || rule.pattern.find('/') != std::string::npos;
  });
}

std::vector<std::string> Session::ConfiguredDatabases() const {
  std::vector<std::string> out;
  for (const DatabaseRule& rule : config_.rules) {
    if (!rule.path.empty()) {
      out.push_back(rule.path);
    } else if (!rule.folder.empty()) {
      AddFromFolder(rule, rule.folder, &out);
    } else if (rule.pattern.find('/') != std::string::npos) {
      AddFromGlob(rule.pattern, &out);
    }
  }
  std::vector<std::string> unique;
  std::sort(out.begin(), out.end());
  std::unique_copy(out.begin(), out.end(), std::back_inserter(unique));
  return unique;
}

Result<std::vector<std::string>> Session::Databases(const std::vector<std::string>& named) const {
  std::vector<std::string> out;
  for (const std::string& name : named) {
    out.push_back(FullPath(name));
    if (!FileExists(out.back())) return Status(Code::kNotFound, "there is no database " + out.back());
  }
  if (named.empty()) out = ConfiguredDatabases();
  if (out.empty())
    return Status(Code::kInvalidArgument,
                  "no database: name one, or list them in a configuration file (dbs:) or in REPLICA_DATABASES");
  return out;
}

Result<std::shared_ptr<Store>> Session::StoreOf(const std::string& database_or_url) const {
  if (IsUrl(database_or_url)) return Hub::Get().OpenStore(database_or_url, config_.options);
  const std::string path = FullPath(database_or_url);
  const DatabaseRule* rule = config_.FindRule(path);
  if (rule != nullptr && !rule->missing.empty())
    return Status(Code::kInvalidArgument, path + ": missing: " + Join(rule->missing, "; "));
  auto store = Hub::Get().StoreFor(path);
  if (store.ok() || rule != nullptr) return store;
  return Status(Code::kInvalidArgument,
                store.status().message() +
                    ", and no configuration names its replica: list it in a configuration file, "
                    "set REPLICA_URL, or give the replica's URL instead");
}

void InstallExtension() {
  sqlite3_auto_extension(reinterpret_cast<void (*)(void)>(&sqlite3_replica_init));
  // The first connection hands the library its table of SQLite's functions; it needs them for work of its own too.
  sqlite3* db = nullptr;
  (void)sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, nullptr);
  sqlite3_close(db);
}

Result<std::unique_ptr<OpenDatabase>> OpenDatabase::Open(const std::string& path, int busy_ms) {
  if (!FileExists(path)) return Status(Code::kNotFound, "there is no database " + path);
  REPLICA_TRY(ActAsOwner(path));
  sqlite3* db = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr);
  std::unique_ptr<OpenDatabase> out(new OpenDatabase(db));
  if (rc != SQLITE_OK)
    return Status(Code::kIo, "open " + path + ": " + (db == nullptr ? "out of memory" : sqlite3_errmsg(db)));
  sqlite3_busy_timeout(db, busy_ms);
  // The first read opens the WAL, which is what replication begins with.
  auto read = out->Query("PRAGMA schema_version");
  if (!read.ok()) return read.status().In(path);
  return out;
}

OpenDatabase::~OpenDatabase() {
  sqlite3_close(db_);
}

Result<std::string> OpenDatabase::Query(const std::string& sql, const std::vector<std::string>& parameters) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK)
    return Status(Code::kIo, sqlite3_errmsg(db_));
  for (size_t i = 0; i < parameters.size(); i++)
    sqlite3_bind_text(statement, static_cast<int>(i) + 1, parameters[i].c_str(), -1, SQLITE_TRANSIENT);
  const int rc = sqlite3_step(statement);
  std::string value;
  if (rc == SQLITE_ROW && sqlite3_column_text(statement, 0) != nullptr)
    value = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
  const std::string error = rc == SQLITE_ROW || rc == SQLITE_DONE ? "" : sqlite3_errmsg(db_);
  sqlite3_finalize(statement);
  if (!error.empty()) return Status(Code::kIo, error);
  return value;
}

Result<std::unique_ptr<OpenDatabase>> EnsureUploader(const std::string& path) {
  REPLICA_TRY(ActAsOwner(path));
  const std::string folder = Database::FolderOf(path);
  auto lock = OpenOwnFile(LockPath(folder), O_RDWR);
  if (lock.ok() && IsLocked(lock->get(), LockByte::kLeader)) return std::unique_ptr<OpenDatabase>();
  REPLICA_ASSIGN(auto open, OpenDatabase::Open(path));
  if (Hub::Get().FindService(path) == nullptr) {
    const std::string trouble = Hub::Get().Trouble(path);
    return Status(Code::kInvalidArgument, "no process uploads " + path + ", and this one does not: " +
                                              (trouble.empty() ? Hub::Get().WhyNot(path) : trouble));
  }
  return open;
}

Status TrustLinks(const std::string& path) {
  struct stat target {};
  if (::geteuid() != 0 || ::stat(path.c_str(), &target) != 0) return Ok();  // who opens it will tell
  // As the kernel resolves it, name by name, also those that links lead to.
  std::string done;
  std::string rest = path;
  for (int links = 0; !rest.empty();) {
    const size_t begin = rest.find_first_not_of('/');
    if (begin == std::string::npos) break;
    const size_t end = std::min(rest.find('/', begin), rest.size());
    const std::string part = done + "/" + rest.substr(begin, end - begin);
    rest.erase(0, end);
    struct stat st {};
    if (::lstat(part.c_str(), &st) != 0) return ErrnoStatus(errno, "stat", part);
    if (!S_ISLNK(st.st_mode)) {
      done = part;
      continue;
    }
    if (st.st_uid != 0 && st.st_uid != target.st_uid)
      return {Code::kPermission, part + " is a link that the owner of " + FullPath(path) +
                                     " did not make: root does not follow it; name the file itself"};
    std::error_code error;
    const std::string to = std::filesystem::read_symlink(part, error).string();
    if (error || ++links > kMostLinks) return {Code::kPermission, part + " is a link that leads nowhere"};
    if (to[0] == '/') done.clear();
    rest.insert(0, to + (rest.empty() ? "" : "/"));
  }
  return Ok();
}

Status ActAsOwner(const std::string& path) {
  ActAsOneself();
  REPLICA_TRY(TrustLinks(path));
  return ActAs(path);
}

namespace {

// Whether the database may hold commits that no uploader has captured, judged by the files alone: writers without
// libreplica leave no other trace when nobody uploads.
bool WrittenSinceCapture(const std::string& path) {
  const std::string folder = Database::FolderOf(path);
  const auto state = StateFile(folder).LoadHeader();
  if (!state || state->fenced) return false;
  const FileStamp stamp = StampOf(path);
  // The -wal carries no locks: it may be opened and closed.
  auto wal = OpenFile(path + "-wal", O_RDONLY);
  uint8_t head[kWalHeaderSize] = {};
  uint8_t frame[kFrameHeaderSize] = {};
  auto read = [&](void* out, size_t size, uint64_t offset) {
    auto n = wal.ok() ? ReadAt(wal->get(), out, size, offset, path) : wal.status();
    return n.ok() && *n == size;
  };
  WalHeader header;
  if (read(head, sizeof head, 0) && ParseWalHeader(head, &header)) {
    const uint32_t next = header.salts == state->wal.salts ? state->wal.frame + 1 : 1;
    if (read(frame, sizeof frame, FrameOffset(next, state->page_size)) && ParseFrameHeader(frame).salts == header.salts)
      return true;
    if (header.salts == state->wal.salts) return false;
  }
  if (state->stamp != FileStamp{}) return state->stamp != stamp;
  // Nobody stamped it: did the last close find just what was captured?
  auto database = Hub::Get().FindDatabase(path);
  if (database == nullptr) return true;
  auto chain = database->Chain();
  return !chain.ok() || chain->left != HashOf(stamp) || chain->left_end != chain->end || !IsEnd(state->wal, *chain);
}

}  // namespace

Status MayLookAt(const std::string& path) {
  const std::string folder = Database::FolderOf(path);
  if (::access(folder.c_str(), R_OK | X_OK) == 0 || errno == ENOENT) return Ok();
  return ErrnoStatus(errno, "look into", folder + " (ask as the user who owns it)");
}

std::string Problem(const std::string& path, const nlohmann::ordered_json& status, double max_lag) {
  if (!FileExists(path)) return "the database does not exist (yet)";
  if (status.contains("message")) {
    // What this process knows of it is no help: it does not replicate.
    if (Hub::Get().FindService(path) != nullptr || !Hub::Get().Trouble(path).empty())
      return status["message"].get<std::string>();
    if (Status may = MayLookAt(path); !may.ok()) return may.message();
    return FileExists(Database::FolderOf(path))
               ? "no process has replicated it since this machine was started"
               : "no process has replicated it yet: `replica check` tells whether one could";
  }
  const std::string state = status.value("state", "");
  if (status.contains("last_error") && status["last_error"].is_string()) return status["last_error"].get<std::string>();
  if (state == "error" || state == "fenced") return "replication stopped: see the events";
  const auto lag = status.value("lag", nlohmann::ordered_json::object());
  // Null as long as nobody knows.
  auto number = [&lag](const char* name) {
    auto found = lag.find(name);
    return found != lag.end() && found->is_number() ? found->get<double>() : 0.0;
  };
  const double seconds = number("seconds");
  if (max_lag > 0 && seconds > max_lag)
    return "the oldest commit that is not in the replica is " + HumanSeconds(seconds) + " old";
  if (state == "off" && number("txids") > 0)
    return "no process uploads it, and " + std::to_string(static_cast<uint64_t>(number("txids"))) + " commits wait";
  if (state == "off" && WrittenSinceCapture(path))
    return "no process uploads it, and it has been written to since the last one did";
  return "";
}

}  // namespace replica

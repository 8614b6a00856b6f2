// The databases that a command is about, and a way to work on one.
#ifndef LIBREPLICA_CLI_SESSION_H_
#define LIBREPLICA_CLI_SESSION_H_

#include <sqlite3.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/as_owner.h"
#include "base/status.h"
#include "config/config.h"
#include "uploader/store.h"

namespace replica {

class Session {
 public:
  // Reads the configuration (`file` in place of what the environment names, when not empty) and puts it in force.
  // A missing setting is no error here: it concerns one database. `dedicated`: see Hub::Load.
  static Result<std::unique_ptr<Session>> Create(const std::string& file, bool dedicated);
  // The same with a configuration that the caller has read.
  static Result<std::unique_ptr<Session>> Create(Config config, bool dedicated);

  const Config& config() const { return config_; }

  // The databases named, as absolute paths, or all that the configuration lists. kInvalidArgument: there are none;
  // kNotFound: one that is named is not there.
  Result<std::vector<std::string>> Databases(const std::vector<std::string>& named) const;
  // All that the configuration lists and that are there, or are listed by their path.
  std::vector<std::string> ConfiguredDatabases() const;

  // True when the configuration says where databases are, whether any is there yet or not.
  bool lists_databases() const;

  // The store of a database (a path) or of a replica (a URL).
  Result<std::shared_ptr<Store>> StoreOf(const std::string& database_or_url) const;

 private:
  explicit Session(Config config) : config_(std::move(config)) {}
  const Config config_;
};

bool IsUrl(const std::string& text);

// From now on each connection that this process opens is seen by libreplica. After Hub::Load.
void InstallExtension();

// Holds a database open with libreplica, so that this process uploads it unless another does.
class OpenDatabase {
 public:
  // Opens an existing database. When the configuration does not cover it, it is seen but not uploaded.
  // Waits `busy_ms` for locks of others; so do its statements.
  static Result<std::unique_ptr<OpenDatabase>> Open(const std::string& path, int busy_ms = 10000);
  ~OpenDatabase();  // flushes, within the shutdown timeout, when this process uploads it
  OpenDatabase(const OpenDatabase&) = delete;
  OpenDatabase& operator=(const OpenDatabase&) = delete;

  // Runs SQL with text parameters; the first column of the first row.
  Result<std::string> Query(const std::string& sql, const std::vector<std::string>& parameters = {});

 private:
  explicit OpenDatabase(sqlite3* db) : db_(db) {}
  sqlite3* const db_;
};

// Makes sure that somebody uploads the database while the result is held: another process (then it is null), or this
// one.
Result<std::unique_ptr<OpenDatabase>> EnsureUploader(const std::string& path);

// As root: kPermission when the path (absolute) leads through a link that neither root nor the owner of what it leads
// to has made, who could have root open any file for them. No effect for others.
Status TrustLinks(const std::string& path);

// As root: from now on this thread, and those that it starts, make files as the owner of `path` (a database, or a
// folder to write into), with that user's groups, so that what lies beside a database belongs to who uses it. Follows
// no link that TrustLinks refuses. No effect for others.
Status ActAsOwner(const std::string& path);

// kPermission when this user may not read what lies beside the database.
Status MayLookAt(const std::string& path);

// Why a database needs attention, or empty. `status` is replica_status's of it; a lag above `max_lag` seconds counts
// (0: none does).
std::string Problem(const std::string& path, const nlohmann::ordered_json& status, double max_lag);

}  // namespace replica

#endif  // LIBREPLICA_CLI_SESSION_H_

// What the environment and the configuration file ask for (docs/configuration.md).
//
// Values only: nothing here opens a database or contacts a store. Secrets stay in S3Options and Values and are never
// printed.
//
// Of several places that give a setting the most specific counts: a database's entry in the file, the file's top level,
// the environment, the default.
#ifndef LIBREPLICA_CONFIG_CONFIG_H_
#define LIBREPLICA_CONFIG_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "config/settings.h"

namespace replica {

using Environment = std::map<std::string, std::string>;
// A copy of this process's.
Environment ProcessEnvironment();

// Which databases are replicated where: one entry of the file's `dbs`, or what the environment says.
struct DatabaseRule {
  std::string path;        // of one database, absolute; or empty
  std::string folder;      // else: databases in this folder …
  bool recursive = false;  // … and those below it …
  std::string pattern;     // … whose name (path, when it has a slash) fits this glob
  std::string written;     // path or folder as the file gives it: absolute, links not followed
  std::string url;         // of the replica; without `path` the databases lie below it
  std::string place;       // "/etc/replica.yml:3", "REPLICA_URL"
  AttachOptions options;
  Values values;                     // all that are set
  std::vector<std::string> missing;  // settings that it would need, by name; nothing is replicated while there are any

  bool Fits(const std::string& database) const;
  // The replica's URL of a database that fits.
  std::string UrlOf(const std::string& database) const;
};

struct Config {
  std::string file;                 // configuration file; empty: none
  AttachOptions options;            // for databases that no rule gives any: replica_attach, replica_restore, URIs
  Values values;                    // of the file's top level and the environment
  std::vector<DatabaseRule> rules;  // the first that fits counts
  bool required = false;
  std::string required_by;              // "RAILS_ENV=production"
  std::vector<std::string> missing;     // of all rules; and the URL, when there is none
  std::vector<std::string> warnings;    // what is given and not done, by name and place
  int64_t shutdown_timeout = 10000000;  // µs

  // Null when no rule fits.
  const DatabaseRule* FindRule(const std::string& database) const;
  // The text of a setting that is set, else `missing`.
  std::string Get(const std::string& key, const std::string& missing = "") const;
};

// Reads the environment, and the file that REPLICA_CONFIG or LITESTREAM_CONFIG names ("off": none) or that lies where
// such files lie. kInvalidArgument: a value that cannot be understood, by the variable's name or by file and line; a
// file that cannot be read.
Result<Config> ReadConfig(const Environment& environment);

// "~" replaced, absolute, without "." and ".."; links are not followed.
std::string AbsolutePath(std::string path);
// The path as SQLite will name the file: absolute, "~" replaced, without symbolic links as far as it exists.
std::string FullPath(std::string path);

// The message for a required replica that is not configured.
std::string MissingMessage(const Config& config);
std::string Join(const std::vector<std::string>& texts, const std::string& between);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_CONFIG_H_

// The configuration file: replica.yml, or a litestream.yml.
#ifndef LIBREPLICA_CONFIG_CONFIG_FILE_H_
#define LIBREPLICA_CONFIG_CONFIG_FILE_H_

#include <string>
#include <vector>

#include "base/status.h"
#include "config/config.h"

namespace replica {

// An entry of `dbs`, with the settings of its replica.
struct FileEntry {
  std::string place;   // "file:line"
  std::string path;    // as written: of a database …
  std::string folder;  // … or of a folder, with
  std::string pattern;
  bool recursive = false;
  std::string url;         // of its own replica; may be empty
  bool in_folder = false;  // its replica is a folder, whose path may be missing
  Values values;
  std::vector<std::string> missing;  // variables without a value, where nothing goes without
};

struct ConfigFile {
  Values values;           // top level
  std::string lists_from;  // "file:line" of `dbs`; empty: not given
  std::vector<FileEntry> databases;
  std::vector<std::string> warnings;
  std::vector<std::string> missing;
};

struct FoundConfig {
  std::string path;    // empty: none, or "off"
  bool named = false;  // by REPLICA_CONFIG or LITESTREAM_CONFIG
};
// The file in force: REPLICA_CONFIG, else LITESTREAM_CONFIG, else the first that is there of replica.yml and
// litestream.yml in the working folder, its config/, and /etc.
FoundConfig FindConfigFile(const Environment& environment);

// Texts may hold $VARIABLE and ${VARIABLE}; "$$" is a dollar sign. Errors begin with "file:line: ". A file that was not
// named must belong to this process's user or to root, and nobody else may write to it: a setting can name a program to
// run and where databases are sent.
Result<ConfigFile> ReadConfigFile(const FoundConfig& found, const Environment& environment);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_CONFIG_FILE_H_

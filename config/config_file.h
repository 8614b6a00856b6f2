// The configuration file: replica.yml, or a litestream.yml as it is.
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
  Values values;  // top level
  std::vector<FileEntry> databases;
  std::vector<std::string> warnings;
  std::vector<std::string> missing;
};

// The file in force: REPLICA_CONFIG, else LITESTREAM_CONFIG, else the first that is there of replica.yml and
// litestream.yml in the working folder, its config/, and /etc. Empty: none, or "off".
std::string FindConfigFile(const Environment& environment);

// Texts may hold $VARIABLE and ${VARIABLE}; "$$" is a dollar sign. Errors begin with "file:line: ".
Result<ConfigFile> ReadConfigFile(const std::string& path, const Environment& environment);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_CONFIG_FILE_H_

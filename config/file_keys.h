// Keys of the configuration file that the table of settings does not have, or has by another name.
//
// Litestream's keys are all here (its reference of 0.3 and 0.5), so that an existing file is never misread: what is not
// needed or not supported is a warning, what would weaken a promise is an error.
#ifndef LIBREPLICA_CONFIG_FILE_KEYS_H_
#define LIBREPLICA_CONFIG_FILE_KEYS_H_

#include <string>

namespace replica {

// Where a key may stand.
enum KeyLevel : unsigned { kTop = 1, kDatabase = 2, kReplica = 4, kSnapshotSection = 8, kDashboardSection = 16 };

struct FileKey {
  const char* key;
  unsigned levels;  // KeyLevel
  enum Use {
    kStructure,    // says what is replicated where
    kAlias,        // another name of a setting
    kUnneeded,     // a warning: there is nothing here that it would set
    kUnsupported,  // a warning: it is not done
    kRefused,      // an error, unless it is switched off
  } use;
  const char* text;  // kAlias: the setting; else what to tell
};

// Null: none that may stand there.
const FileKey* FindFileKey(const std::string& key, KeyLevel level);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_FILE_KEYS_H_

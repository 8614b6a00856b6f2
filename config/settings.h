// The table of settings: what each is called in the environment, in the configuration file and in the JSON of
// replica_attach, and what it does. Everything that reads or shows settings goes by this table; docs/configuration.md
// lists it for people (a test compares the two).
#ifndef LIBREPLICA_CONFIG_SETTINGS_H_
#define LIBREPLICA_CONFIG_SETTINGS_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "base/status.h"
#include "uploader/engine.h"
#include "uploader/s3_store.h"

namespace replica {

// How one database is replicated.
struct AttachOptions {
  S3Options s3;                 // bucket and prefix come from the URL
  bool path_style_set = false;  // else: path style for every endpoint but Amazon's
  EngineOptions engine;
  bool wait_for_commit = false;       // sync=commit
  int64_t commit_timeout = 10000000;  // µs that a COMMIT waits at most
  bool guard = false;                 // keep processes without libreplica from restarting the WAL too early
  bool restore_missing = false;       // restore=auto
  bool uploader_process = false;      // uploader=process
  std::string schema = "main";        // replica_attach only
};

enum class SettingKind { kText, kFlag, kMillis, kBytes };  // of the JSON option; elsewhere all are texts

// Of the process unless kDatabase: those may differ from database to database.
enum class SettingScope { kDatabase, kProcess };

struct Setting {
  const char* key;             // in the configuration file; one with a dot lies in a section, "dashboard.user"
  const char* option;          // of replica_attach; null: none
  const char* environment[3];  // names; the first that is set counts
  SettingKind kind;
  SettingScope scope;
  bool secret;           // never shown
  const char* fallback;  // the default, in words where it depends
  const char* meaning;
  // Checks the text; sets the option that it gives (a kProcess one gives none). Null: any text will do.
  Status (*apply)(const std::string& text, AttachOptions* options);
};

std::span<const Setting> AllSettings();
const Setting* FindSetting(const std::string& key);

// A setting's text and where it came from: "REPLICA_REGION", "/etc/replica.yml:12", "default".
struct Value {
  std::string text;
  std::string source;
};
using Values = std::map<std::string, Value>;  // by key; only those that are set

// Sets the options that `values` give. The error names the value's source and its key.
Status ApplyValues(const Values& values, AttachOptions* options);

// Puts the JSON object of replica_attach over `options`. One that names another endpoint than `options` and no key of
// its own leaves no key: what is configured for one server is not sent to another. An unknown name is an error that
// lists the known ones.
Status ApplyJson(const std::string& json, AttachOptions* options);
// The JSON object that ApplyJson turns back into these options. Holds secrets.
std::string OptionsAsJson(const AttachOptions& options);

// What a person may see of a value.
std::string Shown(const Setting& setting, const std::string& text);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_SETTINGS_H_

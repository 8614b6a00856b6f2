// The configuration in force, as JSON: what `replica config` prints and the dashboard shows. Secrets are masked.
#ifndef LIBREPLICA_CLI_SETTINGS_REPORT_H_
#define LIBREPLICA_CLI_SETTINGS_REPORT_H_

#include <nlohmann/json.hpp>

#include "config/config.h"

namespace replica {

// {"file", "required", "required_by", "missing", "warnings", "settings": [{"key", "name", "value", "source", "default",
// "secret", "set", "required", "meaning"}], "databases": [{"path" | "folder" and "pattern", "replica", "place",
// "missing", "settings"}]}; a database's settings are those that its entry in the file gives.
nlohmann::ordered_json SettingsReport(const Config& config);

}  // namespace replica

#endif  // LIBREPLICA_CLI_SETTINGS_REPORT_H_

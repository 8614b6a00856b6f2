// Reports of the library (base/json.h) become nlohmann's trees where the command works on with them.
#ifndef LIBREPLICA_CLI_REPORT_TREE_H_
#define LIBREPLICA_CLI_REPORT_TREE_H_

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace replica {

// Found by nlohmann: ordered_json tree = StatusReport(path).
inline void to_json(nlohmann::ordered_json& tree, const Json& report) {
  tree = nlohmann::ordered_json::parse(report.Dump());
}

}  // namespace replica

#endif  // LIBREPLICA_CLI_REPORT_TREE_H_

// The dashboard's files, embedded in the program (assets.S.in).
#ifndef LIBREPLICA_CLI_DASHBOARD_ASSETS_H_
#define LIBREPLICA_CLI_DASHBOARD_ASSETS_H_

#include <string_view>

namespace replica {

struct Asset {
  const char* path;  // of the request
  const char* type;
  std::string_view text;
};

// Null when there is none of that path.
const Asset* FindAsset(std::string_view path);

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_ASSETS_H_

// Tries everything that replication needs of a store, one thing after the other, and tells what came of it. Any thread
// but the store's own; waits for the network.
#ifndef LIBREPLICA_UPLOADER_STORE_CHECK_H_
#define LIBREPLICA_UPLOADER_STORE_CHECK_H_

#include <string>
#include <vector>

#include "base/clock.h"
#include "uploader/store.h"

namespace replica {

struct CheckStep {
  enum Outcome { kPassed, kFailed, kSkipped } outcome = kPassed;
  std::string name;    // "list", "clock", "put", "get", "conditional-put", "delete"
  std::string detail;  // what was found, or what to do
};

// Writes one small object below `store`'s URL ("check-<random>") and removes it again.
std::vector<CheckStep> CheckStore(Store* store, const Clock& clock);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_STORE_CHECK_H_

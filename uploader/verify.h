// Proves a replica: that it ends where the database is, that every object of it is whole, that a restore is the
// database. Any thread but the store's own.
#ifndef LIBREPLICA_UPLOADER_VERIFY_H_
#define LIBREPLICA_UPLOADER_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "uploader/store.h"

namespace replica {

struct ObjectsReport {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  std::vector<std::string> errors;    // one per damaged, foreign or missing object; at most kMostErrors
  std::vector<std::string> warnings;  // what is missing and needed for states before the newest snapshot only
  static constexpr size_t kMostErrors = 100;
};

// Bytes done and planned; false calls the verify off (kInterrupted). May be empty.
using VerifyProgress = std::function<bool(uint64_t done, uint64_t planned)>;

// Reads every object of a generation and checks its checksums, its place in the history and the log for holes. An error
// status means that the store could not be read at all.
Result<ObjectsReport> VerifyObjects(Store* store, const Id& generation, const VerifyProgress& progress);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_VERIFY_H_

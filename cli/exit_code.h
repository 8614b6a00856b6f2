// What the replica command ends with; also listed in its manual (cli/manual.cc).
#ifndef LIBREPLICA_CLI_EXIT_CODE_H_
#define LIBREPLICA_CLI_EXIT_CODE_H_

#include "base/status.h"

namespace replica {

enum ExitCode {
  kExitOk = 0,
  kExitNo = 1,       // done, and the answer is no: a replica that is not right, an unhealthy database, a failed check
  kExitInput = 2,    // arguments, configuration, or a file or database that is not there; nothing was changed
  kExitFailed = 3,   // the store or the system refused or did not answer
  kExitTimeout = 4,  // not within the time given
  kExitInterrupted = 130  // by a signal
};

inline ExitCode ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case Code::kOk:
      return kExitOk;
    case Code::kCorrupt:
    case Code::kConflict:
      return kExitNo;
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kExists:
    case Code::kUnsupported:
      return kExitInput;
    case Code::kTimeout:
      return kExitTimeout;
    case Code::kInterrupted:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

}  // namespace replica

#endif  // LIBREPLICA_CLI_EXIT_CODE_H_

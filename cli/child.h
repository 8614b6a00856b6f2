// A command that `replica replicate --exec` runs, and ends with.
#ifndef LIBREPLICA_CLI_CHILD_H_
#define LIBREPLICA_CLI_CHILD_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/status.h"

namespace replica {

class Child {
 public:
  // Starts `command`, split into words as a shell does it (quotes, $variables, ~, *; no pipes, no commands in a row),
  // without systemd's variables that are meant for us.
  Status Start(const std::string& command);
  bool running() const { return pid_ > 0; }
  // Passes a signal on.
  void Signal(int signal) const;
  // Takes the exit codes of processes that are not the command: as a container's first process one inherits them.
  void ReapOthers() const;
  // Its exit code once it has ended (128 + the signal that killed it).
  std::optional<int> Ended();

 private:
  pid_t pid_ = 0;
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_CHILD_H_

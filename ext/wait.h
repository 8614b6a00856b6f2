// Waiting for the leader, in whatever process it runs. Any thread.
#ifndef LIBREPLICA_EXT_WAIT_H_
#define LIBREPLICA_EXT_WAIT_H_

#include <cstdint>
#include <functional>

#include "base/control_block.h"
#include "base/status.h"

namespace replica {

// Waits until everything committed before the call is acknowledged by the store. kTimeout after `micros`; at once with
// the leader's error when that needs a person (fenced, refused credentials, …).
// kInterrupted once `go_on` (may be empty), asked several times a second, says no.
Status WaitSynced(ControlBlock* control, int64_t micros, const std::function<bool()>& go_on = {});

// Waits until `done` says so, woken whenever the leader's status changes.
Status WaitFor(ControlBlock* control, int64_t micros, const std::function<bool()>& done);

}  // namespace replica

#endif  // LIBREPLICA_EXT_WAIT_H_

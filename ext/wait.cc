#include "ext/wait.h"

#include <algorithm>

#include "base/clock.h"
#include "base/futex.h"

namespace replica {
namespace {

// An error of the kind that needs a person is believed when it stands this long: a retry may be clearing it just now.
constexpr int64_t kBelieve = 1500000;  // µs
constexpr int64_t kLook = 200000;      // µs between looks when nobody wakes us (a leader that was killed)

}  // namespace

Status WaitFor(ControlBlock* c, int64_t micros, const std::function<bool()>& done) {
  const int64_t start = SystemClock().SteadyMicros();
  int64_t trouble_since = 0;
  c->waiters.fetch_add(1, std::memory_order_seq_cst);
  Status status;
  for (;;) {
    const uint32_t word = c->ack_word.load(std::memory_order_seq_cst);
    if (done()) break;
    const int64_t now = SystemClock().SteadyMicros();
    const auto state = static_cast<ReplicaState>(c->state.load());
    const bool trouble = state == ReplicaState::kFenced || state == ReplicaState::kError;
    if (!trouble) {
      trouble_since = 0;
    } else if (trouble_since == 0) {
      trouble_since = now;
    } else if (now - trouble_since > kBelieve) {
      status = Status(Code::kUnavailable, LoadText(c->last_error));
      break;
    }
    if (now - start >= micros) {
      std::string why = c->error_since.load() != 0 ? LoadText(c->last_error) : "";
      if (c->leader_pid.load() == 0) why = "no process uploads this database";
      status = Status(Code::kTimeout, "not acknowledged within " + std::to_string(micros / 1000) + " ms" +
                                          (why.empty() ? "" : ": " + why));
      break;
    }
    FutexWait(&c->ack_word, word, std::min(kLook, micros - (now - start)));
  }
  c->waiters.fetch_sub(1);
  return status;
}

Status WaitSynced(ControlBlock* c, int64_t micros, const std::function<bool()>& go_on) {
  const uint64_t ticket = c->sync_wanted.fetch_add(1, std::memory_order_seq_cst) + 1;
  WakeLeader(c);
  bool called_off = false;
  REPLICA_TRY(WaitFor(c, micros, [&] {
    called_off = go_on && !go_on();
    return called_off || c->sync_done.load(std::memory_order_acquire) >= ticket;
  }));
  return called_off ? Status(Code::kInterrupted, "called off") : Ok();
}

}  // namespace replica

// Calling off what a thread waits for in a store: a person pressed Ctrl-C, or the time to stop is up.
//
// A scope says, for its thread and those that take its question on, how to find out; waits ask every kCallOffLook. The
// question must be safe to ask from any thread.
#ifndef LIBREPLICA_BASE_CALL_OFF_H_
#define LIBREPLICA_BASE_CALL_OFF_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace replica {

constexpr int64_t kCallOffLook = 100000;  // µs

class CallOff {
 public:
  using Question = std::shared_ptr<const std::function<bool()>>;

  explicit CallOff(std::function<bool()> question);
  // Takes on what Current() was in the thread that started this one; null: nobody asks.
  explicit CallOff(Question question);
  ~CallOff();
  CallOff(const CallOff&) = delete;
  CallOff& operator=(const CallOff&) = delete;

  static Question Current();
  // True when this thread shall not wait any longer.
  static bool Asked();

 private:
  const Question question_;
  const CallOff* const outer_;
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_CALL_OFF_H_

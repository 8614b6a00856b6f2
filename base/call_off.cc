#include "base/call_off.h"

#include <utility>

namespace replica {
namespace {

// Of the innermost scope. A plain pointer, so that nothing is left to destroy at a thread's end.
// (Why initial-exec: vfs/shim.cc.)
[[gnu::tls_model("initial-exec")]] thread_local const CallOff* innermost = nullptr;

}  // namespace

CallOff::CallOff(std::function<bool()> question)
    : CallOff(std::make_shared<const std::function<bool()>>(std::move(question))) {}

CallOff::CallOff(Question question) : question_(std::move(question)), outer_(std::exchange(innermost, this)) {}

CallOff::~CallOff() {
  innermost = outer_;
}

CallOff::Question CallOff::Current() {
  return innermost == nullptr ? nullptr : innermost->question_;
}

bool CallOff::Asked() {
  const Question question = Current();
  return question != nullptr && (*question)();
}

}  // namespace replica

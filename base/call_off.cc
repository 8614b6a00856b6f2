#include "base/call_off.h"

#include <utility>

namespace replica {
namespace {

thread_local CallOff::Question current;

}  // namespace

CallOff::CallOff(std::function<bool()> question)
    : CallOff(std::make_shared<const std::function<bool()>>(std::move(question))) {}

CallOff::CallOff(Question question) : before_(std::exchange(current, std::move(question))) {}

CallOff::~CallOff() {
  current = before_;
}

CallOff::Question CallOff::Current() {
  return current;
}

bool CallOff::Asked() {
  return current != nullptr && (*current)();
}

}  // namespace replica

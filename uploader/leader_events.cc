#include "uploader/leader_events.h"

#include <algorithm>
#include <utility>

namespace replica {
namespace {

constexpr size_t kMaxTold = 16;  // messages of one outage that are told

}  // namespace

LeaderEvents::LeaderEvents(std::string folder, const Clock& clock)
    : folder_(std::move(folder)), log_(folder_, clock), clock_(clock) {}

void LeaderEvents::Add(const std::string& kind, const std::string& message) {
  Flush();
  log_.Add(kind, message);
}

void LeaderEvents::AddLater(const std::string& kind, const std::string& message) {
  if (later_.empty()) later_at_ = clock_.SteadyMicros() + kVisit;
  later_.push_back({FormatTime(clock_.WallMicros()), kind, message});
}

void LeaderEvents::Flush() {
  for (const Event& event : std::exchange(later_, {})) log_.Add(event);
}

void LeaderEvents::Error(const Status& status) {
  const int64_t now = clock_.SteadyMicros();
  if (!std::exchange(failing_, true)) failing_since_ = now;
  error_ = status;
  if (told_.count(status.message()) != 0 || told_.size() >= kMaxTold) return;
  if (NeedsPerson(status) || (!told_.empty() && now - told_at_ >= kOtherError)) TellError();
}

void LeaderEvents::TellError() {
  told_.insert(error_.message());
  told_at_ = clock_.SteadyMicros();
  // Processes that come and go during an outage all meet it.
  const Event last = EventLog::Last(folder_);
  if (last.kind != "error" || last.message != EventLog::Shorten(error_.message())) Add("error", error_.message());
}

void LeaderEvents::Recovered(bool inherited) {
  const int64_t now = clock_.SteadyMicros();
  const bool passed = failing_ && told_.empty();
  if (passed) {
    if (passed_++ == 0) {
      passed_since_ = now;
      passed_from_ = FormatTime(clock_.WallMicros());
    }
    passed_message_ = error_.message();
  }
  if (inherited || !told_.empty()) Add("recovered", "the store answers again");
  failing_ = false;
  told_.clear();
  if (passed_ != 0 && now - passed_since_ >= kPassed) {
    Add("error", std::to_string(passed_) + " errors since " + passed_from_ +
                     " passed within seconds; the last one was: " + passed_message_);
    passed_ = 0;
  }
}

void LeaderEvents::Tick() {
  const int64_t now = clock_.SteadyMicros();
  if (!later_.empty() && now >= later_at_) Flush();
  if (failing_ && told_.empty() && now - failing_since_ >= kLasts) TellError();
}

int64_t LeaderEvents::due() const {
  int64_t due = INT64_MAX;
  if (!later_.empty()) due = std::min(due, later_at_);
  if (failing_ && told_.empty()) due = std::min(due, failing_since_ + kLasts);
  return due;
}

void LeaderEvents::End() {
  if (failing_ && told_.empty()) TellError();
  later_.clear();
}

}  // namespace replica

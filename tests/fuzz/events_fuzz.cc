// The event log's file.
#include "base/clock.h"
#include "tests/fuzz/fuzz.h"
#include "uploader/event_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string path = Folder() + "/events";
  WriteFile(path, View(data, size));
  const std::vector<Event> events = EventLog::Read(Folder());
  for (const Event& event : events)
    Require(!event.time.empty() && !event.kind.empty(), "an event has a time and a kind");
  accepted = !events.empty();
  if (size != 0 && data[size - 1] != '\n') return 0;  // the line that a crash cut short takes the next one with it
  EventLog(Folder(), SystemClock()).Add("kind", "message");
  const std::vector<Event> more = EventLog::Read(Folder());
  Require(more.size() == events.size() + 1 && more.back().message == "message", "what is added comes back");
  return 0;
}

// What happened to a replica, for people: <database>-replica/events, one JSON object a line, {"time","kind","message"}.
//
// Bounded: past 256 KiB the file becomes events.1 and a new one begins. Appends are single writes, so processes may
// share the file. Thread-safe. A failure to write is not reported: events are a convenience.
#ifndef LIBREPLICA_UPLOADER_EVENT_LOG_H_
#define LIBREPLICA_UPLOADER_EVENT_LOG_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace replica {

struct Event {
  std::string time;  // RFC 3339, UTC
  std::string kind;  // docs/sql.md, replica_events
  std::string message;
};

class EventLog {
 public:
  EventLog(std::string folder, const Clock& clock) : folder_(std::move(folder)), clock_(clock) {}
  void Add(const std::string& kind, const std::string& message) const;
  // With its own time, which is not the present.
  void Add(const Event& event) const;
  // Oldest first.
  static std::vector<Event> Read(const std::string& folder);
  // The newest one; with an empty kind when there is none.
  static Event Last(const std::string& folder);
  // A message as it is kept.
  static std::string Shorten(const std::string& message);

 private:
  const std::string folder_;
  const Clock& clock_;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_EVENT_LOG_H_

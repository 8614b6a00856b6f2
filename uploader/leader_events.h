// What a leader writes into the event log: what a person needs to know, and each thing once.
//
// A process that opens the database for a moment and goes on with the history leaves no line: who leads is written with
// the first other line, or once it has led for kVisit. An error that passes within kLasts leaves none either; such
// errors are counted, and told together when an hour has passed. An error that only a person can end is told at once.
// The leader's thread only.
#ifndef LIBREPLICA_UPLOADER_LEADER_EVENTS_H_
#define LIBREPLICA_UPLOADER_LEADER_EVENTS_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "uploader/event_log.h"

namespace replica {

class LeaderEvents {
 public:
  static constexpr int64_t kVisit = 60000000;        // µs
  static constexpr int64_t kLasts = 10000000;        // µs
  static constexpr int64_t kOtherError = 600000000;  // µs until an outage's error is told in other words
  static constexpr int64_t kPassed = 3600000000;     // µs between lines about errors that passed

  LeaderEvents(std::string folder, const Clock& clock);

  void Add(const std::string& kind, const std::string& message);
  // Written with the next line, or after kVisit.
  void AddLater(const std::string& kind, const std::string& message);
  // What stands in the way now.
  void Error(const Status& status);
  // Nothing does any more. `inherited`: an earlier leader's error is over as well.
  void Recovered(bool inherited);
  // Writes what is due.
  void Tick();
  // Steady µs: when the next Tick has something to write; INT64_MAX: never.
  int64_t due() const;
  // The leadership ends: an error that it leaves behind is told.
  void End();

 private:
  void Flush();
  void TellError();

  const std::string folder_;
  const EventLog log_;
  const Clock& clock_;
  std::vector<Event> later_;
  int64_t later_at_ = 0;  // steady µs
  bool failing_ = false;
  Status error_;
  int64_t failing_since_ = 0;   // steady µs
  std::set<std::string> told_;  // messages of this outage
  int64_t told_at_ = 0;         // steady µs
  int passed_ = 0;
  int64_t passed_since_ = 0;    // steady µs
  std::string passed_from_;     // the same for people
  std::string passed_message_;  // the last one's
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_LEADER_EVENTS_H_

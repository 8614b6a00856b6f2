// The time, passed in so that tests can move it. Thread-safe.
#ifndef LIBREPLICA_BASE_CLOCK_H_
#define LIBREPLICA_BASE_CLOCK_H_

#include <cstdint>
#include <string>

namespace replica {

class Clock {
 public:
  virtual ~Clock() = default;
  // Microseconds since 1970-01-01 UTC; may jump.
  virtual int64_t WallMicros() const = 0;
  // Microseconds since some fixed moment; never goes back. For intervals and deadlines.
  virtual int64_t SteadyMicros() const = 0;
};

// The machine's clock; lives as long as the process.
const Clock& SystemClock();

// "2026-11-23T06:25:00.123456Z"
std::string FormatTime(int64_t wall_micros);
// Reads "2026-11-23T06:25:00[.fraction]Z", the same with a blank for the T, with "+hh:mm"/"-hh:mm" for the Z, or with
// none of them (taken as UTC). False when `text` is none of these.
bool ParseTime(const std::string& text, int64_t* wall_micros);

}  // namespace replica

#endif  // LIBREPLICA_BASE_CLOCK_H_

#include "base/clock.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace replica {
namespace {

int64_t Now(clockid_t id) {
  timespec ts{};
  clock_gettime(id, &ts);
  return int64_t{ts.tv_sec} * 1000000 + ts.tv_nsec / 1000;
}

class RealClock : public Clock {
 public:
  int64_t WallMicros() const override { return Now(CLOCK_REALTIME); }
  int64_t SteadyMicros() const override { return Now(CLOCK_MONOTONIC); }
};

// Reads exactly `digits` decimal digits at `*p` and moves past them; -1 when they are not there.
int Digits(const char** p, int digits) {
  int v = 0;
  for (int i = 0; i < digits; i++) {
    if (**p < '0' || **p > '9') return -1;
    v = v * 10 + (*(*p)++ - '0');
  }
  return v;
}

bool Skip(const char** p, char c) {
  if (**p != c) return false;
  ++*p;
  return true;
}

}  // namespace

const Clock& SystemClock() {
  // Never destroyed: the flush at process exit runs after static destructors.
  static const auto* clock = new RealClock;
  return *clock;
}

std::string FormatTime(int64_t wall_micros) {
  int64_t micros = wall_micros % 1000000;
  time_t seconds = wall_micros / 1000000;
  if (micros < 0) {
    micros += 1000000;
    seconds--;
  }
  tm parts{};
  gmtime_r(&seconds, &parts);
  char day[32];
  char out[48];
  strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(out, sizeof out, "%s.%06dZ", day, static_cast<int>(micros));
  return out;
}

bool ParseTime(const std::string& text, int64_t* wall_micros) {
  const char* p = text.c_str();
  tm parts{};
  int year = Digits(&p, 4);
  if (year < 1970 || !Skip(&p, '-')) return false;
  parts.tm_year = year - 1900;
  int month = Digits(&p, 2);
  if (month < 1 || month > 12 || !Skip(&p, '-')) return false;
  parts.tm_mon = month - 1;
  parts.tm_mday = Digits(&p, 2);
  if (parts.tm_mday < 1 || parts.tm_mday > 31) return false;
  if (!Skip(&p, 'T') && !Skip(&p, ' ')) return false;
  parts.tm_hour = Digits(&p, 2);
  if (parts.tm_hour < 0 || parts.tm_hour > 23 || !Skip(&p, ':')) return false;
  parts.tm_min = Digits(&p, 2);
  if (parts.tm_min < 0 || parts.tm_min > 59 || !Skip(&p, ':')) return false;
  parts.tm_sec = Digits(&p, 2);
  if (parts.tm_sec < 0 || parts.tm_sec > 59) return false;
  int64_t micros = 0;
  if (Skip(&p, '.')) {
    int64_t unit = 100000;
    if (*p < '0' || *p > '9') return false;
    for (; *p >= '0' && *p <= '9'; p++, unit /= 10) micros += (*p - '0') * unit;
  }
  int64_t offset = 0;
  if (*p == '+' || *p == '-') {
    int sign = *p++ == '+' ? 1 : -1;
    int hours = Digits(&p, 2);
    if (hours < 0 || !Skip(&p, ':')) return false;
    int minutes = Digits(&p, 2);
    if (minutes < 0) return false;
    offset = int64_t{sign} * (int64_t{hours} * 3600 + int64_t{minutes} * 60);
  } else {
    Skip(&p, 'Z');
  }
  if (*p != 0) return false;
  const tm given = parts;
  const int64_t seconds = timegm(&parts);  // puts a 30th of February into March: refuse it
  if (parts.tm_mday != given.tm_mday || parts.tm_mon != given.tm_mon) return false;
  *wall_micros = (seconds - offset) * 1000000 + micros;
  return true;
}

}  // namespace replica

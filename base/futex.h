// Sleeping on a 32-bit word that may be shared between processes (futex(2)). A wake-up may be spurious.
#ifndef LIBREPLICA_BASE_FUTEX_H_
#define LIBREPLICA_BASE_FUTEX_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace replica {

// Sleeps while *word == expected, at most `timeout_micros` (negative: without limit).
inline void FutexWait(std::atomic<uint32_t>* word, uint32_t expected, int64_t timeout_micros) {
  timespec ts{};
  ts.tv_sec = timeout_micros / 1000000;
  ts.tv_nsec = timeout_micros % 1000000 * 1000;
  ::syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_micros < 0 ? nullptr : &ts, nullptr, 0);
}

inline void FutexWakeAll(std::atomic<uint32_t>* word) {
  ::syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace replica

#endif  // LIBREPLICA_BASE_FUTEX_H_

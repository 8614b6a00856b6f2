// Durations in buckets, in shared memory: one process at a time observes (the leader), anyone reads. Each number stands
// alone; a reader may see a count without its sum for a moment.
#ifndef LIBREPLICA_BASE_HISTOGRAM_H_
#define LIBREPLICA_BASE_HISTOGRAM_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace replica {

// Upper bounds in microseconds; a last bucket takes what is longer.
constexpr std::array<int64_t, 15> kHistogramBounds = {1000,    2500,    5000,     10000,    25000,
                                                      50000,   100000,  250000,   500000,   1000000,
                                                      2500000, 5000000, 10000000, 30000000, 60000000};

struct Histogram {
  std::array<std::atomic<uint64_t>, kHistogramBounds.size() + 1> counts;
  std::atomic<uint64_t> sum;  // microseconds

  void Observe(int64_t micros) {
    size_t bucket = 0;
    while (bucket < kHistogramBounds.size() && micros > kHistogramBounds[bucket]) bucket++;
    counts[bucket].fetch_add(1, std::memory_order_relaxed);
    sum.fetch_add(micros < 0 ? 0 : static_cast<uint64_t>(micros), std::memory_order_relaxed);
  }
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_HISTOGRAM_H_

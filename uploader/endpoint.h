// Back-off that all databases of a process share: one host, or one folder of replicas, fails or works for all of them.
//
// While an endpoint is down one request probes it, and everybody else waits. The first answer ends the outage and wakes
// those who wait. An endpoint is down after a request that had no answer, or the answer "come back later". An answer
// about one database (403, 412, 413, no such bucket) is an answer: the engine of that database keeps its own delay.
//
// Processes do not know of each other's probes. The delay between two probes is therefore short: after an outage
// every process goes on within kLongestDelay, too.
#ifndef LIBREPLICA_UPLOADER_ENDPOINT_H_
#define LIBREPLICA_UPLOADER_ENDPOINT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "base/clock.h"
#include "base/thread_annotations.h"

namespace replica {

// Who may try, and when. Pure: the caller gives the time (steady microseconds) and the random number. One thread at a
// time.
class EndpointBackoff {
 public:
  static constexpr int64_t kFirstDelay = 100000;       // µs
  static constexpr int64_t kLongestDelay = 2000000;    // µs between probes, jitter included
  static constexpr int64_t kLongestRetry = 120000000;  // µs of a Retry-After that are obeyed

  bool down() const { return failures_ != 0; }
  int64_t down_since() const { return down_since_; }

  // Asks to send a request. While the endpoint is down true means: this is the probe. A probe without an answer for
  // kLongestDelay does not keep the next one back: a connection may hang for longer than the outage lasts.
  bool TryBegin(int64_t now);
  // When TryBegin is worth the next try; 0: at once.
  int64_t next_try() const;
  // A request had an answer. True when that ends an outage.
  bool Answered(int64_t now);
  // A request that began at `begun` had no answer, or one that asks to come back: after `retry_after` µs (0: it does
  // not say when). `jitter` is from [0, 1).
  void Failed(int64_t begun, int64_t now, int64_t retry_after, double jitter);

 private:
  int failures_ = 0;  // in a row: of the request that found the outage and of probes
  int64_t down_since_ = 0;
  int64_t next_probe_ = 0;
  int64_t not_before_ = 0;   // of Retry-After
  int64_t probe_begun_ = 0;  // 0: none is under way
};

// The same, shared by threads: engines ask, the store's threads report. mutex_ is a leaf: under it nothing waits and no
// other lock is taken, as a wake-up is a futex call. So reports may come from the network's thread.
class Endpoint {
 public:
  Endpoint(std::string name, const Clock& clock);

  // "https://host:port", "file:///folder".
  const std::string& name() const { return name_; }

  bool TryBegin() EXCLUDES(mutex_);
  bool down() EXCLUDES(mutex_);
  // Steady µs: since when it is down, 0 when it is not; when to ask TryBegin next, 0 for at once.
  int64_t down_since() EXCLUDES(mutex_);
  int64_t next_try() EXCLUDES(mutex_);
  // What the last failure was, for people.
  std::string error() EXCLUDES(mutex_);
  // Failures so far. Whoever compares it before and after knows whether the endpoint failed meanwhile.
  uint64_t failures() const { return count_.load(); }

  // Of every request. `begun`: steady µs.
  void Answered() EXCLUDES(mutex_);
  void Failed(int64_t begun, int64_t retry_after, const std::string& error) EXCLUDES(mutex_);

  // Calls `wake` at the end of each outage, and when the next try comes sooner, on the reporting thread, until it is
  // destroyed. `wake` must not block, and
  // must not call this object.
  class Waiter {
   public:
    Waiter(std::shared_ptr<Endpoint> endpoint, std::function<void()> wake);
    ~Waiter();
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;

   private:
    const std::shared_ptr<Endpoint> endpoint_;
  };

 private:
  const std::string name_;
  const Clock& clock_;
  std::atomic<uint64_t> count_{0};
  Mutex mutex_;
  EndpointBackoff backoff_ GUARDED_BY(mutex_);
  std::mt19937_64 random_ GUARDED_BY(mutex_);
  std::string error_ GUARDED_BY(mutex_);
  std::map<const Waiter*, std::function<void()>> waiters_ GUARDED_BY(mutex_);
};

// The endpoints of a process. One thread at a time (Hub::mutex_). The child of a fork has a table of its own.
class EndpointTable {
 public:
  std::shared_ptr<Endpoint> Find(const std::string& name);
  // Of an S3 endpoint's URL: scheme, host and port.
  static std::string NameOfUrl(const std::string& url);
  // Of a replica's folder: the folder around it, where the replicas of several databases usually are.
  static std::string NameOfFolder(const std::string& folder);

 private:
  std::map<std::string, std::shared_ptr<Endpoint>> endpoints_;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_ENDPOINT_H_

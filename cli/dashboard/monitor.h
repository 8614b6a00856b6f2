// Looks at the databases once a second and keeps what it saw: for the dashboard's charts and for /metrics. Thread-safe.
#ifndef LIBREPLICA_CLI_DASHBOARD_MONITOR_H_
#define LIBREPLICA_CLI_DASHBOARD_MONITOR_H_

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/thread_annotations.h"
#include "cli/session.h"
#include "uploader/history.h"

namespace replica {

struct Sample {
  int64_t time = 0;    // wall clock, milliseconds
  double lag = 0;      // seconds
  double commits = 0;  // a second, as are the next two
  double stored = 0;   // bytes
  double puts = 0;
  uint64_t spool = 0;  // bytes
};

class Monitor {
 public:
  // `databases`: fixed ones; empty: those of the session's configuration, looked up anew each time. `session` outlives
  // it. `max_lag` in seconds.
  Monitor(const Session* session, std::vector<std::string> databases, double max_lag);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  double max_lag() const { return max_lag_; }

  // The last look at every database, in a stable order: the index is the database's id.
  nlohmann::ordered_json Databases() EXCLUDES(mutex_);
  // Paths by id.
  std::vector<std::string> Paths() EXCLUDES(mutex_);
  // Those after `after` (milliseconds), oldest first.
  std::vector<Sample> Samples(size_t id, int64_t after) EXCLUDES(mutex_);
  // How many databases need attention.
  size_t Problems() EXCLUDES(mutex_);

  // What a database's replica holds; a store is asked at most every 15 s. Waits for it for kHistoryWait; kTimeout: it
  // has not answered yet, ask again.
  Result<nlohmann::ordered_json> HistoryOf(const std::string& path) EXCLUDES(mutex_);

 private:
  struct Watched {
    std::string path;
    nlohmann::ordered_json status;
    std::deque<Sample> samples;
    bool gone = false;   // deleted, and found by a pattern, not named: nobody misses it
    bool known = false;  // the counters below are of an earlier look
    uint64_t committed = 0;
    uint64_t stored = 0;
    uint64_t puts = 0;
    int64_t seen = 0;  // steady µs
  };
  struct Past {
    Mutex mutex;
    std::condition_variable changed;
    bool reading GUARDED_BY(mutex) = false;  // by a thread of its own, which nobody waits for at the end
    nlohmann::ordered_json report GUARDED_BY(mutex);
    Status status GUARDED_BY(mutex);     // of the last reading
    int64_t read GUARDED_BY(mutex) = 0;  // steady µs: its end
    // The reading thread's.
    std::shared_ptr<Store> store;
    std::unique_ptr<HistoryReader> reader;
  };

  void Run() EXCLUDES(mutex_);
  void Look() EXCLUDES(mutex_);
  static void Read(Past* past);
  static void Take(Watched* watched, nlohmann::ordered_json status);

  const Session* const session_;
  const std::vector<std::string> fixed_;
  const double max_lag_;
  Mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Watched> watched_ GUARDED_BY(mutex_);  // only ever grows: ids stay
  std::map<std::string, std::shared_ptr<Past>> pasts_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_MONITOR_H_

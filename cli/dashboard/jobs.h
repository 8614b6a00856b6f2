// What a user of the dashboard has set going: verify, snapshot, restore. Each runs in a thread of its own. Thread-safe.
#ifndef LIBREPLICA_CLI_DASHBOARD_JOBS_H_
#define LIBREPLICA_CLI_DASHBOARD_JOBS_H_

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/status.h"
#include "base/thread_annotations.h"

namespace replica {

class Jobs {
 public:
  // Told bytes done and planned; false: stop.
  using Tell = std::function<bool(uint64_t done, uint64_t planned)>;
  using Work = std::function<Result<nlohmann::ordered_json>(const Tell& tell)>;

  Jobs() = default;
  ~Jobs();  // calls off what runs, and waits for it
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // Starts `work`; its id. kExists: the same kind runs for this database already; kUnavailable: too much runs.
  Result<uint64_t> Start(const std::string& kind, size_t database, const std::string& message, Work work)
      EXCLUDES(mutex_);
  // Newest first; the finished of long ago are forgotten.
  nlohmann::ordered_json List() EXCLUDES(mutex_);

 private:
  struct Job {
    uint64_t id = 0;
    std::string kind;
    size_t database = 0;
    std::string state = "running";
    std::string message;
    int64_t started = 0;  // wall clock µs
    int64_t finished = 0;
    nlohmann::ordered_json result;
    std::atomic<uint64_t> done{0};
    std::atomic<uint64_t> planned{0};
    std::thread thread;
  };

  void Run(Job* job, const Work& work) EXCLUDES(mutex_);

  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  uint64_t next_ GUARDED_BY(mutex_) = 1;
  std::list<std::unique_ptr<Job>> jobs_ GUARDED_BY(mutex_);  // oldest first
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_JOBS_H_

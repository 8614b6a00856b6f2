#include "cli/dashboard/jobs.h"

#include <algorithm>

#include "base/clock.h"
#include "base/worker.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMostRunning = 4;
constexpr size_t kMostKept = 100;

}  // namespace

Jobs::~Jobs() {
  stopping_.store(true);
  for (;;) {
    std::unique_ptr<Job> job;
    {
      MutexLock lock(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    if (job->thread.joinable()) job->thread.join();
  }
}

Result<uint64_t> Jobs::Start(const std::string& kind, size_t database, const std::string& message, Work work) {
  MutexLock lock(mutex_);
  size_t running = 0;
  for (const auto& job : jobs_) {
    if (job->state != "running") continue;
    running++;
    if (job->kind == kind && job->database == database)
      return Status(Code::kExists, "a " + kind + " of this database is running already");
  }
  if (running >= kMostRunning) return Status(Code::kUnavailable, "too much is running: wait for something to finish");
  while (jobs_.size() >= kMostKept) {
    auto finished = std::find_if(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->state != "running"; });
    (*finished)->thread.join();
    jobs_.erase(finished);
  }
  auto job = std::make_unique<Job>();
  Job* raw = job.get();
  raw->id = next_++;
  raw->kind = kind;
  raw->database = database;
  raw->message = message;
  raw->started = SystemClock().WallMicros();
  jobs_.push_back(std::move(job));
  auto thread = StartThread("replica-job", [this, raw, work = std::move(work)] { Run(raw, work); });
  if (!thread.ok()) jobs_.pop_back();
  REPLICA_TRY(thread.status());
  raw->thread = std::move(*thread);
  return raw->id;
}

void Jobs::Run(Job* job, const Work& work) {
  auto guarded = [&work](const Tell& tell) -> Result<nlohmann::ordered_json> {
    try {
      return work(tell);
    } catch (const std::exception& e) {
      // Out of memory, most likely: the dashboard goes on.
      return Status(Code::kInternal, std::string("unexpected: ") + e.what());
    }
  };
  auto result = guarded([this, job](uint64_t done, uint64_t planned) {
    job->done.store(done);
    job->planned.store(planned);
    return !stopping_.load();
  });
  MutexLock lock(mutex_);
  job->finished = SystemClock().WallMicros();
  if (result.ok()) {
    job->state = "done";
    job->result = std::move(*result);
  } else {
    job->state = "failed";
    job->message = result.status().message();
  }
}

ordered_json Jobs::List() {
  MutexLock lock(mutex_);
  ordered_json out = ordered_json::array();
  for (auto it = jobs_.rbegin(); it != jobs_.rend(); ++it) {
    const Job& job = **it;
    const uint64_t planned = job.planned.load();
    const double part = planned == 0 ? 0 : static_cast<double>(job.done.load()) / static_cast<double>(planned);
    out.push_back({{"id", job.id},
                   {"kind", job.kind},
                   {"database", job.database},
                   {"state", job.state},
                   {"progress", planned == 0 ? ordered_json() : ordered_json(std::min(part, 1.0))},
                   {"message", job.message},
                   {"started", FormatTime(job.started)},
                   {"finished", job.finished == 0 ? ordered_json() : ordered_json(FormatTime(job.finished))},
                   {"result", job.result}});
  }
  return out;
}

}  // namespace replica

#include "cli/dashboard/monitor.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "base/clock.h"
#include "base/fs.h"
#include "base/worker.h"
#include "cli/report_tree.h"
#include "ext/hub.h"
#include "sql/report.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLook = 1000000;           // µs between looks
constexpr size_t kMostSamples = 600;         // ten minutes
constexpr size_t kMostLog = 200;             // log segments of a generation that a timeline shows
constexpr int64_t kHistoryFresh = 15000000;  // µs
constexpr int64_t kHistoryWait = 5000000;    // µs
constexpr double kMonth = 30 * 86400.0;      // seconds
// Amazon S3 Standard, us-east-1, first tier, in USD (https://aws.amazon.com/s3/pricing/, looked up in November 2026).
constexpr double kStorageMonth = 0.023;  // a GB
constexpr double kThousandPuts = 0.005;

std::string CommandOf(int pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/comm";
  char text[64] = "";
  auto fd = OpenFile(path, O_RDONLY);
  auto n = fd.ok() ? ReadAt(fd->get(), text, sizeof text, 0, path) : fd.status();
  std::string out(text, n.ok() ? *n : 0);
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

ordered_json Cost(const std::string& url, const History& history, int64_t first, int64_t last) {
  if (url.rfind("s3://", 0) != 0)
    return {{"currency", "USD"},
            {"storage_month", 0.0},
            {"requests_month", 0.0},
            {"note", "A folder: its disk is what it costs."}};
  // Over at least a day, so that the first hour of a replica is not taken for every hour.
  const double span = std::max(static_cast<double>(last - first) / 1e6, 86400.0);
  const double puts = static_cast<double>(history.objects) / span * kMonth;
  return {
      {"currency", "USD"},
      {"storage_month", static_cast<double>(history.bytes) / 1e9 * kStorageMonth},
      {"requests_month", puts / 1000 * kThousandPuts},
      {"note",
       "An estimate: list prices of Amazon S3 Standard in us-east-1 (0.023 USD per GB and month, 0.005 USD per 1,000 "
       "PUTs), for what is stored now and uploads at the rate so far; without traffic."}};
}

ordered_json HistoryAsJson(const Store& store, const History& history) {
  ordered_json segments = ordered_json::array();
  int64_t first = 0;
  int64_t last = 0;
  uint64_t first_txid = 0;
  uint64_t last_txid = 0;
  for (const HistoryEntry& e : history.entries) {
    segments.push_back(HistoryReport(store, e));
    // What the log holds of the time before the first snapshot is not restorable.
    if (e.snapshot && (first == 0 || e.last_time < first)) {
      first = e.last_time;
      first_txid = e.max_txid;
    }
    if (e.last_time >= last) {
      last = e.last_time;
      last_txid = e.max_txid;
    }
  }
  const bool none = first == 0;
  return {{"first_time", none ? ordered_json() : ordered_json(FormatTime(first))},
          {"last_time", none ? ordered_json() : ordered_json(FormatTime(last))},
          {"first_txid", first_txid},
          {"last_txid", last_txid},
          {"objects", history.objects},
          {"bytes", history.bytes},
          {"generations", history.generations},
          {"sampled", history.sampled},
          {"holes", HolesReport(history)},
          {"segments", segments},
          {"cost", Cost(store.url(), history, first, last)}};
}

}  // namespace

Monitor::Monitor(const Session* session, std::vector<std::string> databases, double max_lag)
    : session_(session), fixed_(std::move(databases)), max_lag_(max_lag) {
  Look();
  auto thread = StartThread("replica-watch", [this] {
    try {
      Run();
    } catch (const std::exception& e) {
      (void)std::fprintf(stderr, "replica: the dashboard shows nothing new from now on: %s\n", e.what());
    }
  });
  if (thread.ok()) thread_ = std::move(*thread);  // without it the page shows what was so at the start
}

Monitor::~Monitor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Monitor::Run() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      lock.WaitUntil(changed_, std::chrono::steady_clock::now() + std::chrono::microseconds(kLook));
      if (stopping_) return;
    }
    Look();
  }
}

void Monitor::Look() {
  std::vector<std::string> paths = fixed_.empty() ? session_->ConfiguredDatabases() : fixed_;
  std::map<std::string, ordered_json> statuses;
  std::set<std::string> gone;
  for (const std::string& known : Paths()) {
    if (std::find(paths.begin(), paths.end(), known) != paths.end()) continue;
    paths.push_back(known);
    if (!FileExists(known)) gone.insert(known);
  }
  for (const std::string& path : paths) {
    ordered_json status = StatusReport(path);
    const std::string problem = Problem(path, status, max_lag_);
    auto size = FileSize(path);
    status["database_bytes"] = size.ok() ? *size : 0;
    status["name"] = BaseName(path);
    status["healthy"] = problem.empty();
    status["problem"] = problem.empty() ? ordered_json() : ordered_json(problem);
    status["restore_directory"] = ParentFolder(path);
    if (status.contains("leader_pid") && status["leader_pid"].is_number()) {
      const int pid = status["leader_pid"].get<int>();
      status["leader"] = {{"pid", pid},
                          {"kind", status["uploader"] == "process" ? "process" : "application"},
                          {"command", CommandOf(pid)}};
    } else if (status.contains("leader_pid")) {
      status["leader"] = nullptr;
    }
    statuses[path] = std::move(status);
  }
  MutexLock lock(mutex_);
  for (const std::string& path : paths) {
    auto found = std::find_if(watched_.begin(), watched_.end(), [&](const Watched& w) { return w.path == path; });
    if (found == watched_.end()) {
      watched_.emplace_back();
      found = std::prev(watched_.end());
      found->path = path;
    }
    found->gone = gone.count(path) != 0;
    Take(&*found, std::move(statuses[path]));
  }
}

void Monitor::Take(Watched* w, ordered_json status) {
  w->status = std::move(status);
  const int64_t now = SystemClock().SteadyMicros();
  if (!w->status.contains("txid")) {
    w->known = false;
    return;
  }
  if (!w->status["lag"]["seconds"].is_number()) {
    w->known = false;
    return;
  }
  const auto committed = w->status["txid"]["committed"].get<uint64_t>();
  const auto stored = w->status["bytes_stored"].get<uint64_t>();
  const auto puts = w->status["puts"].get<uint64_t>();
  // Counters begin anew with a control block, TXIDs with a generation.
  if (w->known && committed >= w->committed && stored >= w->stored && puts >= w->puts && now > w->seen) {
    const double seconds = static_cast<double>(now - w->seen) / 1e6;
    Sample sample;
    sample.time = SystemClock().WallMicros() / 1000;
    sample.lag = w->status["lag"]["seconds"].get<double>();
    sample.commits = static_cast<double>(committed - w->committed) / seconds;
    sample.stored = static_cast<double>(stored - w->stored) / seconds;
    sample.puts = static_cast<double>(puts - w->puts) / seconds;
    sample.spool = w->status["spool_bytes"].get<uint64_t>();
    w->samples.push_back(sample);
    if (w->samples.size() > kMostSamples) w->samples.pop_front();
  }
  w->known = true;
  w->committed = committed;
  w->stored = stored;
  w->puts = puts;
  w->seen = now;
}

ordered_json Monitor::Databases() {
  MutexLock lock(mutex_);
  ordered_json out = ordered_json::array();
  for (size_t id = 0; id < watched_.size(); id++) {
    if (watched_[id].gone) continue;
    ordered_json status = watched_[id].status;
    status["id"] = id;
    out.push_back(std::move(status));
  }
  return out;
}

std::vector<std::string> Monitor::Paths() {
  MutexLock lock(mutex_);
  std::vector<std::string> out;
  for (const Watched& w : watched_) out.push_back(w.path);
  return out;
}

std::vector<Sample> Monitor::Samples(size_t id, int64_t after) {
  MutexLock lock(mutex_);
  std::vector<Sample> out;
  if (id >= watched_.size()) return out;
  for (const Sample& sample : watched_[id].samples)
    if (sample.time > after) out.push_back(sample);
  return out;
}

size_t Monitor::Problems() {
  MutexLock lock(mutex_);
  return static_cast<size_t>(std::count_if(watched_.begin(), watched_.end(),
                                           [](const Watched& w) { return !w.gone && !w.status["problem"].is_null(); }));
}

Result<ordered_json> Monitor::HistoryOf(const std::string& path) {
  std::shared_ptr<Past> past;
  {
    MutexLock lock(mutex_);
    auto& entry = pasts_[path];
    if (entry == nullptr) entry = std::make_shared<Past>();
    past = entry;
  }
  MutexLock lock(past->mutex);
  const int64_t now = SystemClock().SteadyMicros();
  const bool fresh = past->read != 0 && now - past->read < kHistoryFresh;
  if (!fresh && !past->reading) {
    if (past->reader == nullptr) {
      REPLICA_ASSIGN(past->store, session_->StoreOf(path));
      past->reader = std::make_unique<HistoryReader>(past->store.get());
    }
    past->reading = true;
    // A store may take minutes to fail.
    auto thread = StartThread("replica-hist", [past] {
      try {
        Read(past.get());
      } catch (const std::exception& e) {
        // A replica that takes more memory than there is: the dashboard goes on.
        MutexLock ended(past->mutex);
        past->status = Status(Code::kInternal, std::string("the history cannot be read: ") + e.what());
        past->read = SystemClock().SteadyMicros();
        past->reading = false;
        past->changed.notify_all();
      }
    });
    if (!thread.ok()) past->reading = false;
    REPLICA_TRY(thread.status());
    thread->detach();
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(kHistoryWait);
  while (past->reading && past->report.is_null() && std::chrono::steady_clock::now() < deadline)
    lock.WaitUntil(past->changed, deadline);
  if (!past->reading && !past->status.ok()) return past->status;
  if (!past->report.is_null()) return past->report;  // the one before, while another is being read
  return Status(Code::kTimeout, "the store has not answered yet");
}

void Monitor::Read(Past* past) {
  auto history = past->reader->Read(kMostLog);
  ordered_json report;
  if (history.ok()) report = HistoryAsJson(*past->store, *history);
  MutexLock lock(past->mutex);
  past->status = history.status();
  if (history.ok()) past->report = std::move(report);
  past->read = SystemClock().SteadyMicros();
  past->reading = false;
  past->changed.notify_all();
}

}  // namespace replica

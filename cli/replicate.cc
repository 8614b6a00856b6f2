// `replica replicate`: a process whose work uploading is. It opens the databases, takes the leadership of each, and
// keeps both until it is told to stop.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>
#include <thread>

#include "base/byte_lock.h"
#include "base/call_off.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/worker.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/dashboard/server.h"
#include "cli/exit_code.h"
#include "cli/lost_mapping.h"
#include "cli/report_tree.h"
#include "cli/session.h"
#include "cli/supervised.h"
#include "config/parse.h"
#include "ext/hub.h"
#include "sql/report.h"
#include "uploader/replica.h"
#include "uploader/restore.h"
#include "vfs/database.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLook = 1000000;         // µs between looks for new databases and at their state
constexpr int kBusy = 50;                  // ms that opening a database may wait for a lock
constexpr int kLooksForNext = 30;          // of 10 ms: for the next in line to have the leadership
constexpr int64_t kStatusEvery = 5000000;  // µs between status lines to systemd

// Whether SIGINT or SIGTERM waits to be taken: they are blocked (SignalFd).
bool StopPending() {
  sigset_t pending;
  return ::sigpending(&pending) == 0 && (::sigismember(&pending, SIGINT) == 1 || ::sigismember(&pending, SIGTERM) == 1);
}

// Lines for the journal or a container's log.
void Log(const std::string& text) {
  std::cerr << FormatTime(SystemClock().WallMicros()) << " replica: " << text << std::endl;
}

class Replicator {
 public:
  explicit Replicator(Session* session) : session_(session) {}

  // Restores the databases that are missing and of which a replica is there, where that is asked for. A signal that
  // ends us calls it off.
  Status RestoreMissing(bool all) {
    const CallOff call_off(StopPending);
    for (const std::string& path : session_->ConfiguredDatabases()) {
      const DatabaseRule* rule = session_->config().FindRule(path);
      if (FileExists(path) || rule == nullptr || !(all || rule->options.restore_missing)) continue;
      REPLICA_ASSIGN(auto store, session_->StoreOf(path));
      auto generations = ListGenerations(store.get());
      if (!generations.ok()) return generations.status().In("restoring " + path);
      if (generations->empty()) {
        Log(path + " does not exist, and there is no replica at " + store->url() + ": it begins anew");
        continue;
      }
      Log(path + " does not exist: restoring it from " + store->url());
      REPLICA_TRY(ActAsOwner(ParentFolder(path)));
      auto restored = RestoreDatabase(store.get(), {}, path, [](uint64_t /*done*/, uint64_t /*planned*/) {
        // It may take longer than systemd waits for a start.
        sd_notify(0, "EXTEND_TIMEOUT_USEC=60000000");
        return !StopPending();
      });
      ActAsOneself();
      if (!restored.ok()) return restored.status().In("restoring " + path);
      if (!restored->warning.empty()) Log(path + ": warning: " + restored->warning);
      Log(path + " restored: TXID " + std::to_string(restored->txid) + " of " + FormatTime(restored->time));
    }
    return Ok();
  }

  // Opens what is there and not open yet.
  void OpenNew() {
    for (const std::string& path : session_->ConfiguredDatabases()) {
      if (databases_.count(path) != 0) continue;
      if (!FileExists(path)) {
        if (waiting_.insert(path).second) Log(path + " does not exist yet: waiting for it");
        continue;
      }
      auto open = Open(path);
      ActAsOneself();
      if (open.ok()) {
        databases_[path].connection = std::move(*open);
        waiting_.erase(path);
        errors_.erase(path);
      } else if (errors_[path] != open.status().message()) {
        errors_[path] = open.status().message();
        Log(path + " cannot be opened, trying again: " + open.status().message());
      }
    }
  }

  // Tells what has changed since the last look; closes databases that are gone.
  void Watch() {
    for (auto it = databases_.begin(); it != databases_.end();) {
      const auto service = Hub::Get().FindService(it->first);
      const bool stale = service != nullptr && service->database()->Stale();
      if (stale || !FileExists(it->first)) {
        Log(it->first + (stale ? "-replica was removed or cut short: opening it anew" : " is gone"));
        it = databases_.erase(it);
        continue;
      }
      const ordered_json status = StatusReport(it->first);
      const std::string state = status.value("state", "off");
      const std::string problem = Problem(it->first, status, 0);
      if (state != it->second.state || problem != it->second.problem)
        Log(it->first + ": " + state + (problem.empty() ? "" : ": " + problem));
      it->second.state = state;
      it->second.problem = problem;
      ++it;
    }
  }

  std::string Summary() const {
    size_t streaming = 0;
    for (const auto& [path, database] : databases_) streaming += database.state == "streaming" ? 1 : 0;
    return std::to_string(streaming) + " of " + std::to_string(databases_.size()) + " databases streaming";
  }

  // Flushes all of them within one bound, then closes them. False when something could not be sent.
  bool Close() {
    Hub::Get().StopAll();
    std::vector<std::string> paths;
    paths.reserve(databases_.size());
    for (const auto& [path, database] : databases_) paths.push_back(path);
    while (!databases_.empty()) {
      (void)ActAsOwner(databases_.begin()->first);
      databases_.erase(databases_.begin());
    }
    ActAsOneself();
    bool all = true;
    for (const std::string& path : paths) {
      const ordered_json status = StatusReport(path);
      // The next in line, who has the leadership by now, sends the rest.
      if (!status.contains("lag") || status["lag"]["txids"] == 0 || IsLed(path)) continue;
      all = false;
      Log(status["lag"]["txids"].is_number()
              ? path + ": " + std::to_string(status["lag"]["txids"].get<uint64_t>()) +
                    " commits are not stored yet; they are sent at the next start"
              : path + ": nothing was stored, as its replica was never reached; it is compared at the next start");
    }
    return all;
  }

 private:
  struct Held {
    std::unique_ptr<OpenDatabase> connection;
    std::string state;
    std::string problem;
  };

  // Whether another process takes, or has taken, the leadership.
  static bool IsLed(const std::string& path) {
    auto lock = OpenOwnFile(LockPath(Database::FolderOf(path)), O_RDWR);
    for (int i = 0; lock.ok() && i < kLooksForNext; i++) {
      if (IsLocked(lock->get(), LockByte::kLeader)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  Result<std::unique_ptr<OpenDatabase>> Open(const std::string& path) {
    // Before anything of it is changed. What a link leads to may be no database of ours.
    REPLICA_TRY(TrustLinks(path));
    const DatabaseRule* rule = session_->config().FindRule(FullPath(path));
    if (rule != nullptr && !rule->written.empty()) REPLICA_TRY(TrustLinks(rule->written));
    if (rule == nullptr)
      return Status(Code::kInvalidArgument, "it is a link to " + FullPath(path) + ", which no entry of dbs covers");
    // One that is locked must not keep the others, a signal or the watchdog waiting: it is tried again.
    REPLICA_ASSIGN(auto open, OpenDatabase::Open(path, kBusy));
    REPLICA_ASSIGN(std::string mode, open->Query("PRAGMA journal_mode=WAL"));
    if (mode != "wal")
      return Status(Code::kUnavailable, "it stays in journal mode \"" + mode + "\" while others use it");
    REPLICA_TRY(open->Query("PRAGMA schema_version").status());
    if (Hub::Get().FindService(path) == nullptr) {
      const std::string trouble = Hub::Get().Trouble(path);
      return Status(Code::kInvalidArgument, trouble.empty() ? Hub::Get().WhyNot(path) : trouble);
    }
    return open;
  }

  Session* const session_;
  std::map<std::string, Held> databases_;
  std::map<std::string, std::string> errors_;
  std::set<std::string> waiting_;
};

// /metrics and /healthz of this process.
class MetricsServer {
 public:
  MetricsServer() = default;
  ~MetricsServer() {
    if (server_ == nullptr) return;
    server_->Stop();
    thread_.join();
  }
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  Status Listen(const std::string& listen, const Session* session) {
    ServerOptions options;
    auto address = ParseListenAddress(listen);
    if (!address.ok()) return address.status().In("metrics-listen");
    options.listen = *address;
    options.metrics_token = session->config().Get("dashboard.metrics-token");
    options.open_metrics = true;
    options.page = false;
    int64_t max_lag = 60000000;
    if (const std::string text = session->config().Get("dashboard.max-lag"); !text.empty())
      REPLICA_TRY(ParseDuration(text, &max_lag).In("dashboard.max-lag"));
    monitor_ = std::make_unique<Monitor>(session, std::vector<std::string>(), static_cast<double>(max_lag) / 1e6);
    REPLICA_ASSIGN(server_, Server::Create(options, session, monitor_.get(), nullptr, nullptr));
    REPLICA_ASSIGN(thread_, StartThread("replica-http", [this] { server_->Run(); }));
    Log("metrics at http://" + server_->address().Text() + "/metrics");
    return Ok();
  }

 private:
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// Signals come by a descriptor, so that one poll waits for everything.
Result<UniqueFd> SignalFd() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD}) sigaddset(&set, s);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "watch for", "signals");
  return fd;
}

// The watchdog's half interval in µs, or 0.
int64_t WatchdogInterval() {
  uint64_t micros = 0;
  return sd_watchdog_enabled(0, &micros) > 0 ? static_cast<int64_t>(micros / 2) : 0;
}

int Serve(Replicator* replicator, const UniqueFd& signals, const std::string& exec) {
  Child child;
  const bool init = ::getpid() == 1;  // orphans of a container's command come to us
  replicator->OpenNew();
  if (!exec.empty()) {
    Status status = child.Start(exec);
    if (!status.ok()) {
      Log(status.message());
      return kExitInput;
    }
  }
  sd_notify(0, "READY=1");
  const int64_t watchdog = WatchdogInterval();
  int64_t tell_at = 0;
  int exit_code = kExitOk;
  for (bool stop = false; !stop;) {
    replicator->Watch();
    const int64_t now = SystemClock().SteadyMicros();
    if (now >= tell_at) {
      sd_notify(0, ("STATUS=" + replicator->Summary() + (watchdog != 0 ? "\nWATCHDOG=1" : "")).c_str());
      tell_at = now + (watchdog != 0 ? std::min(watchdog, kStatusEvery) : kStatusEvery);
    }
    pollfd poll_signals = {signals.get(), POLLIN, 0};
    ::poll(&poll_signals, 1, static_cast<int>(kLook / 1000));
    signalfd_siginfo info{};
    while (::read(signals.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGCHLD) continue;
      if (child.running()) {
        // It decides; we end with it. What a terminal sends it has got already.
        if (info.ssi_code != SI_KERNEL) child.Signal(signal);
      } else if (signal == SIGINT || signal == SIGTERM) {
        stop = true;
      }
    }
    if (init) child.ReapOthers();
    if (auto ended = child.Ended(); ended) {
      Log("the command ended with exit code " + std::to_string(*ended));
      exit_code = *ended;
      stop = true;
      replicator->OpenNew();  // what a short command made since the last look
    }
    if (!stop) replicator->OpenNew();
  }
  sd_notify(0, "STOPPING=1\nSTATUS=flushing");
  Log("flushing and stopping");
  const bool all = replicator->Close();
  return exec.empty() && !all ? static_cast<int>(kExitFailed) : exit_code;
}

}  // namespace

int RunReplicate(const Common& common, const ReplicateArguments& arguments) {
  if (arguments.supervised) return RunSupervised();
  SurviveLostControlBlocks();
  const Output output(common.output);
  auto fail = [&](const Status& status) {
    output.Error(status);
    return static_cast<int>(ExitCodeOf(status));
  };
  // Before any thread begins: they inherit the mask.
  auto signals = SignalFd();
  if (!signals.ok()) return fail(signals.status());
  Environment environment = ProcessEnvironment();
  if (!common.config.empty()) environment["REPLICA_CONFIG"] = common.config;
  if (!arguments.database.empty()) {
    if (arguments.url.empty()) return fail(Invalid("give the replica's URL too: replica replicate DATABASE URL"));
    if (!common.config.empty()) return fail(Invalid("give either a configuration file, or a database and its URL"));
    environment["REPLICA_CONFIG"] = "off";
    environment["REPLICA_URL"] = arguments.url;
    for (const char* other : {"REPLICA_DATABASES", "REPLICA_BUCKET", "LITESTREAM_REPLICA_BUCKET"})
      environment.erase(other);
  }
  auto config = ReadConfig(environment);
  if (!config.ok()) return fail(config.status());
  if (!arguments.database.empty()) {
    DatabaseRule rule = config->rules.front();
    rule.pattern.clear();
    rule.path = FullPath(arguments.database);
    config->rules = {rule};
  }
  if (!config->missing.empty()) return fail(Invalid("missing: " + Join(config->missing, "; ")));
  if (config->rules.empty()) return fail(Invalid("no database: list them in a configuration file (dbs:)"));
  // Applications beside this process may not have libreplica loaded.
  for (DatabaseRule& rule : config->rules)
    if (rule.values.count("guard") == 0) rule.options.guard = true;
  for (const std::string& warning : config->warnings) Log("warning: " + warning);
  auto session = Session::Create(std::move(*config), true);
  if (!session.ok()) return fail(session.status());
  if ((*session)->ConfiguredDatabases().empty() && !(*session)->lists_databases())
    return fail(
        Invalid("no database: name each in a configuration file (dbs:), or in REPLICA_DATABASES with its path"));
  MetricsServer metrics;
  if (const std::string listen = (*session)->config().Get("metrics-listen"); !listen.empty()) {
    Status status = metrics.Listen(listen, session->get());
    if (!status.ok()) return fail(status);
  }
  Replicator replicator(session->get());
  if (Status status = replicator.RestoreMissing(arguments.restore); !status.ok()) return fail(status);
  const std::string exec = arguments.exec.empty() ? (*session)->config().Get("exec") : arguments.exec;
  return Serve(&replicator, *signals, exec);
}

}  // namespace replica

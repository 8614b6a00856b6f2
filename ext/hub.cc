#include "ext/hub.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>
#include <utility>

#include "base/as_owner.h"
#include "base/fs.h"
#include "config/parse.h"
#include "ext/wait.h"
#include "uploader/file_store.h"
#include "uploader/replica.h"
#include "uploader/restore.h"
#include "uploader/s3_store.h"
#include "vfs/known_vfs.h"
#include "vfs/shim.h"

namespace replica {
namespace {

// Of the time that passes between closes: what closes may wait for a store that does not take what they leave.
constexpr int64_t kCloseShare = 5;
constexpr int64_t kLeastClose = 1000000;  // µs that a close waits, if it does at all
constexpr char kAwsHost[] = "amazonaws.com";

}  // namespace

Hub* Hub::instance_ = nullptr;

Hub& Hub::Get() {
  static const bool once = [] {
    if (instance_ == nullptr) instance_ = new Hub;
    // OpenSSL cleans up at exit, before our flush would use it: it must not. (If the host initialised it before, its
    // handler runs after ours.)
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
    // Each once, and what cannot be had is tried again at the next load.
    static bool forks = false;
    if (!forks && pthread_atfork(&Hub::BeforeFork, &Hub::AfterForkInParent, &Hub::AfterForkInChild) != 0)
      throw std::bad_alloc();
    forks = true;
    if (std::atexit(&Hub::AtExit) != 0) throw std::bad_alloc();
    return true;
  }();
  (void)once;
  return *instance_;
}

Status Hub::Load() {
  WatchMainThread();
  {
    MutexLock lock(mutex_);
    if (loaded_) return Ok();
  }
  REPLICA_ASSIGN(Config config, ReadConfig(ProcessEnvironment()));
  return Load(std::move(config), false);
}

Status Hub::Load(Config config, bool dedicated) {
  {
    MutexLock lock(mutex_);
    if (loaded_) return Ok();
    if (config.required && !config.missing.empty()) return {Code::kInvalidArgument, MissingMessage(config)};
    config_ = std::move(config);
    dedicated_ = dedicated;
    restores_ = config_.options.restore_missing;
    for (const DatabaseRule& rule : config_.rules) restores_ = restores_ || rule.options.restore_missing;
    loaded_ = true;
    AllowVfses(SplitList(config_.Get("vfs-allow"), ','));
  }
  SetHooks();
  return Ok();
}

void Hub::SetHooks() {
  ShimHooks hooks;
  hooks.before_open = [](const std::string& path, const char* name, bool may_create) {
    return Get().BeforeOpen(path, name, may_create);
  };
  hooks.wal_opened = [](const std::string& path, const char* name) { return Get().WalOpened(path, name); };
  hooks.in_use = [](Database* database) { Get().InUse(database); };
  hooks.last_close = [](const std::shared_ptr<Database>& database) { Get().LastClose(database); };
  hooks.after_commit = [](Database* database) { return Get().AfterCommit(database); };
  hooks.unserved = [](Database* database) { Get().StartAgain(database->path()); };
  hooks.wanted = [](const std::string& path, const char* name) { return Get().Wanted(path, name); };
  hooks.refused = [](const std::string& path) { return Get().Refused(path); };
  hooks.not_replicated = [](const std::string& path, const char* why) { return Get().NotReplicated(path, why); };
  SetShimHooks(std::move(hooks));
}

Config Hub::config() {
  MutexLock lock(mutex_);
  return config_;
}

Result<std::shared_ptr<Store>> Hub::StoreFor(const std::string& path) {
  if (auto service = FindService(path); service != nullptr) return service->store();
  const std::shared_ptr<Database> database = FindDatabase(path);
  MutexLock lock(mutex_);
  const Target target = TargetFor(path, nullptr);
  if (!target.url.empty()) return OpenStoreLocked(target.url, target.options);
  const std::string url = database == nullptr ? "" : LoadText(database->control()->url);
  if (url.empty()) return Status(Code::kInvalidArgument, path + " is not replicated");
  return OpenStoreLocked(url, config_.options);
}

Result<std::shared_ptr<Store>> Hub::OpenStore(const std::string& url, const AttachOptions& options) {
  MutexLock lock(mutex_);
  return OpenStoreLocked(url, options);
}

Result<std::shared_ptr<Store>> Hub::OpenStoreLocked(const std::string& url, const AttachOptions& options) {
  REPLICA_ASSIGN(ReplicaUrl parsed, ParseUrl(url));
  if (parsed.kind == ReplicaUrl::kFile) {
    auto& worker = file_workers_[static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1)))];
    if (worker == nullptr) worker = std::make_shared<Worker>("replica-file");
    return std::shared_ptr<Store>(std::make_shared<FileStore>(
        parsed.folder, worker, endpoints_.Find(EndpointTable::NameOfFolder(parsed.folder))));
  }
  S3Options s3 = options.s3;
  s3.bucket = parsed.bucket;
  s3.prefix = parsed.prefix;
  if (s3.access_key_id.empty() || s3.secret_access_key.empty())
    return Status(
        Code::kInvalidArgument,
        url +
            ": missing credentials: set REPLICA_ACCESS_KEY_ID and REPLICA_SECRET_ACCESS_KEY (or their LITESTREAM_ "
            "or AWS_ names), or give the options access_key_id and secret_access_key");
  // Without an endpoint the region is a part of the host name, and the configured keys go there.
  if (s3.endpoint.empty() && !s3.region.empty() && !IsRegion(s3.region))
    return Status(Code::kInvalidArgument,
                  url + ": \"" + s3.region +
                      "\" is no region of Amazon's: give one like eu-west-1, or the endpoint of "
                      "another store");
  // Amazon wants the bucket in the host name; others mostly know the path only. A dotted bucket fits no TLS
  // certificate.
  if (!options.path_style_set)
    s3.path_style = (!s3.endpoint.empty() && s3.endpoint.find(kAwsHost) == std::string::npos) ||
                    s3.bucket.find('.') != std::string::npos;
  if (http_ == nullptr) http_ = std::make_shared<HttpClient>();
  auto endpoint = endpoints_.Find(EndpointTable::NameOfUrl(S3Store::EndpointUrl(s3)));
  return std::shared_ptr<Store>(std::make_shared<S3Store>(std::move(s3), http_, std::move(endpoint)));
}

Hub::Target Hub::TargetFor(const std::string& path, const char* name) {
  if (name != nullptr) {
    const char* parameter = sqlite3_uri_parameter(name, "replica");
    if (parameter != nullptr && *parameter != 0) return {parameter, config_.options};
  }
  const DatabaseRule* rule = config_.FindRule(path);
  if (rule == nullptr || !rule->missing.empty()) return {};
  return {rule->UrlOf(path), rule->options};
}

Result<std::shared_ptr<Service>> Hub::MakeService(const std::string& path, const std::string& url,
                                                  const AttachOptions& options) {
  // What root makes beside a database belongs to who uses the database.
  const AsOwner owner(path);
  REPLICA_ASSIGN(auto store, OpenStoreLocked(url, options));
  std::shared_ptr<Database> database = databases_[path].lock();
  if (database == nullptr || database->Stale()) {
    REPLICA_TRY(CheckDescriptors());
    REPLICA_ASSIGN(database, Database::Create(path));
    databases_[path] = database;
  }
  database->SetCommitWait(options.wait_for_commit ? options.commit_timeout : 0);
  const bool elsewhere = options.uploader_process && !dedicated_;
  if (elsewhere && uploader_ == nullptr)
    uploader_ = new UploaderProcess(config_.Get("uploader-command"), config_.shutdown_timeout);
  auto service = std::make_shared<Service>(database, std::move(store), options, dedicated_,
                                           elsewhere ? uploader_ : nullptr, config_.required);
  services_[path] = service;
  troubles_.erase(path);
  return service;
}

// One attach or detach of a path at a time: between taking a service out and putting another in, nobody else may.
class Hub::PathTurn {
 public:
  PathTurn(Hub* hub, const std::string& path) : hub_(hub), path_(path) {
    MutexLock lock(hub_->mutex_);
    while (!hub_->attaching_.insert(path_).second) lock.Wait(hub_->attached_);
  }
  ~PathTurn() {
    MutexLock lock(hub_->mutex_);
    hub_->attaching_.erase(path_);
    hub_->attached_.notify_all();
  }
  PathTurn(const PathTurn&) = delete;
  PathTurn& operator=(const PathTurn&) = delete;

 private:
  Hub* const hub_;
  const std::string path_;
};

Status Hub::Attach(const std::string& path, const std::string& url, const AttachOptions& options) {
  const PathTurn turn(this, path);
  std::shared_ptr<Service> service;
  while (service == nullptr) {
    {
      MutexLock lock(mutex_);
      if (services_.count(path) == 0) {
        auto made = MakeService(path, url, options);
        if (!made.ok()) {
          troubles_[path] = made.status().message();
          return made.status();
        }
        service = *made;
      }
    }
    // An open, too, may have made one meanwhile.
    if (service == nullptr) (void)DetachService(path);
  }
  // Taps and gates first: what happens after Start has looked at the file must not go unseen.
  BindFiles(service->database());
  return service->Start();
}

Status Hub::Detach(const std::string& path) {
  const PathTurn turn(this, path);
  return DetachService(path);
}

Status Hub::DetachService(const std::string& path) {
  std::shared_ptr<Service> service;
  int64_t timeout = 0;
  {
    MutexLock lock(mutex_);
    auto found = services_.find(path);
    if (found == services_.end()) return {Code::kNotFound, path + " is not attached in this process"};
    service = found->second;
    services_.erase(found);
    timeout = config_.shutdown_timeout;
  }
  service->Stop(timeout);
  service->database()->SetCommitWait(0);
  UnbindFiles(service->database());
  // Nobody is left whose frames a gate would have to keep. While others have the database open it is theirs to say: the
  // next leader, of another process, counts on the gates.
  service->database()->ForgetIfUnused();
  return Ok();
}

std::shared_ptr<Service> Hub::FindService(const std::string& path) {
  MutexLock lock(mutex_);
  auto found = services_.find(path);
  return found == services_.end() ? nullptr : found->second;
}

std::shared_ptr<Database> Hub::FindDatabase(const std::string& path) {
  MutexLock lock(mutex_);
  if (auto database = databases_[path].lock(); database != nullptr && !database->Stale()) return database;
  auto found = Database::Find(path);
  if (found.status().code() == Code::kUnavailable) troubles_[path] = found.status().message();
  if (!found.ok()) return nullptr;
  databases_[path] = *found;
  return *found;
}

bool Hub::Wanted(const std::string& path, const char* name) {
  MutexLock lock(mutex_);
  return services_.count(path) != 0 || !TargetFor(path, name).url.empty();
}

bool Hub::Refused(const std::string& path) {
  MutexLock lock(mutex_);
  return config_.required && troubles_.count(path) != 0;
}

bool Hub::NotReplicated(const std::string& path, const std::string& why) {
  MutexLock lock(mutex_);
  troubles_[path] = why;
  return config_.required;
}

std::string Hub::Trouble(const std::string& path) {
  MutexLock lock(mutex_);
  auto found = troubles_.find(path);
  return found == troubles_.end() ? "" : found->second;
}

std::string Hub::WhyNot(const std::string& path) {
  MutexLock lock(mutex_);
  if (config_.rules.empty()) return "not configured: set REPLICA_URL, or call replica_attach";
  const DatabaseRule* rule = config_.FindRule(path);
  if (rule == nullptr)
    return config_.file.empty() ? "not attached: it is not among REPLICA_DATABASES"
                                : "not attached: it is not among the databases of " + config_.file;
  if (!rule->missing.empty())
    return (rule->url.empty() ? rule->place : rule->url) + " is configured, but missing: " + Join(rule->missing, "; ");
  return "not attached: it is not in WAL mode (run PRAGMA journal_mode=WAL), or no transaction has begun yet";
}

std::vector<std::string> Hub::Paths() {
  MutexLock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, service] : services_) paths.push_back(path);
  for (const auto& [path, database] : databases_)
    if (services_.count(path) == 0 && !database.expired()) paths.push_back(path);
  for (const auto& [path, trouble] : troubles_)
    if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
  return paths;
}

Status Hub::BeforeOpen(const std::string& path, const char* name, bool may_create) {
  Status status = RestoreMissing(path, name, may_create);
  if (status.ok()) return status;
  MutexLock lock(mutex_);
  troubles_[path] = status.message();  // until it is replicated
  return status;
}

// With REPLICA_RESTORE=auto a database that is missing is restored before SQLite would create an empty one.
Status Hub::RestoreMissing(const std::string& path, const char* name, bool may_create) {
  std::shared_ptr<Store> store;
  Result<uint64_t> size = uint64_t{0};
  {
    MutexLock lock(mutex_);
    if (!restores_) return Ok();
    const Target target = TargetFor(path, name);
    if (target.url.empty() || !target.options.restore_missing) return Ok();
    size = FileSize(path);
    if (size.ok() ? *size != 0 || FileExists(path + "-wal") : !may_create) return Ok();
    REPLICA_ASSIGN(store, OpenStoreLocked(target.url, target.options));
  }
  const std::string doing = "restoring " + path + " before it is opened (REPLICA_RESTORE=auto)";
  auto generations = ListGenerations(store.get());
  if (!generations.ok()) return generations.status().In(doing);
  if (generations->empty()) return Ok();  // a new database
  // Somebody may have the empty file open, so it is not replaced.
  if (size.ok())
    return Status(Code::kExists, path + " is empty although " + store->url() +
                                     " holds its history: remove the empty file, and load libreplica on another "
                                     "connection (\":memory:\") before this one opens it")
        .In(doing);
  auto restored = RestoreDatabase(store.get(), {}, path, {});
  // Another process was faster.
  if (!restored.ok() && FileExists(path)) return Ok();
  if (restored.ok() && !restored->warning.empty())
    sqlite3_log(SQLITE_WARNING, "libreplica: %s is restored, but %s", path.c_str(), restored->warning.c_str());
  return restored.status().In(doing);
}

Status Hub::BeforeAdoption(const std::string& path, const char* name) {
  return FileExists(path) ? RestoreMissing(path, name, false) : Ok();
}

std::shared_ptr<Database> Hub::WalOpened(const std::string& path, const char* name) {
  std::shared_ptr<Service> service;
  std::shared_ptr<Database> database;
  std::shared_ptr<Service> stale = FindService(path);
  if (stale != nullptr && stale->database()->Stale()) {
    // The replica folder was removed since: start over with the same settings, once nobody works in its name any more.
    (void)stale->Stop(1);
  } else {
    stale = nullptr;
  }
  {
    MutexLock lock(mutex_);
    auto found = services_.find(path);
    Target target = TargetFor(path, name);
    if (stale != nullptr && found != services_.end() && found->second == stale) {
      target = {stale->store()->url(), stale->options()};
      services_.erase(found);
      found = services_.end();
    }
    if (found != services_.end()) {
      service = found->second;
    } else if (waiting_.count(path) != 0 || !target.url.empty()) {
      if (auto waits = waiting_.find(path); waits != waiting_.end()) target = waits->second;
      auto made = MakeService(path, target.url, target.options);
      if (made.ok()) {
        service = *made;
      } else {
        // The application goes on, unless a replica is required; status and SQLite's log tell.
        troubles_[path] = made.status().message();
        sqlite3_log(SQLITE_WARNING, "libreplica: %s is not replicated: %s", path.c_str(),
                    made.status().message().c_str());
        if (config_.required)
          (void)std::fprintf(stderr, "libreplica: %s is not replicated: %s\n", path.c_str(),
                             made.status().message().c_str());
        if (made.status().code() == Code::kUnavailable) TryLater(path, target);
      }
    } else if (database = databases_[path].lock(); database == nullptr || database->Stale()) {
      database = nullptr;
      // Replicated by another process: its leader must hear of our commits.
      auto existing = Database::Find(path);
      if (existing.ok()) databases_[path] = database = *existing;
    }
  }
  if (service == nullptr) return database;
  // The leader may still capture a file that this one has taken the place of, and sees no commit of it.
  if (!service->database()->Captures(FileIdOf(path))) WakeLeader(service->database()->control());
  return service->database();
}

void Hub::InUse(Database* database) {
  std::shared_ptr<Service> service = FindService(database->path());
  if (service != nullptr && service->database().get() == database) Begin(service);
}

void Hub::Begin(const std::shared_ptr<Service>& service) {
  if (Status started = service->Start(); !started.ok()) {
    // Its commits are seen, and kept for whoever leads next.
    NotReplicated(service->database()->path(), started.message());
    sqlite3_log(SQLITE_WARNING, "libreplica: %s", started.message().c_str());
  }
}

void Hub::StartAgain(const std::string& path) {
  const std::shared_ptr<Service> service = FindService(path);
  if (service == nullptr || !service->StartAgain()) return;
  MutexLock lock(mutex_);
  troubles_.erase(path);
}

// What stands in the way goes by itself: another version of libreplica that has the database open. Until then it
// uploads what is committed here; its leader finds these commits as those of a process without libreplica.
void Hub::TryLater(const std::string& path, const Target& target) {
  waiting_[path] = target;
  if (waiter_runs_) return;
  auto thread = StartThread("replica-wait", [] {
    try {
      Get().Wait();
    } catch (const std::exception&) {
      // No memory: the next open tries again.
      MutexLock lock(Get().mutex_);
      Get().waiter_runs_ = false;
    }
  });
  if (!thread.ok()) return;  // as above
  waiter_runs_ = true;
  thread->detach();
}

void Hub::Replace(const std::shared_ptr<Service>& service) {
  const std::string& path = service->database()->path();
  // Nobody sees its commits now; and as a user it would keep the folder from whoever makes another block, us included.
  UnbindFiles(service->database());
  MutexLock lock(mutex_);
  auto found = services_.find(path);
  if (found == services_.end() || found->second != service) return;
  const Target target = {service->store()->url(), service->options()};
  services_.erase(found);
  troubles_[path] = service->database()->folder() + " was removed while it was in use; attaching the database again";
  TryLater(path, target);
}

void Hub::Wait() {
  for (;;) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    std::vector<std::shared_ptr<Service>> made;
    {
      MutexLock lock(mutex_);
      for (auto it = waiting_.begin(); it != waiting_.end();) {
        const bool open = IsFileOpen(it->first) && FileExists(it->first);
        auto service = open && services_.count(it->first) == 0
                           ? MakeService(it->first, it->second.url, it->second.options)
                           : Result<std::shared_ptr<Service>>(Status(Code::kNotFound, "not open any more"));
        if (service.ok()) made.push_back(*service);
        if (!service.ok() && open) troubles_[it->first] = service.status().message();
        if (!service.ok() && service.status().code() == Code::kUnavailable) {
          ++it;
        } else {
          it = waiting_.erase(it);
        }
      }
      if (waiting_.empty()) waiter_runs_ = false;
    }
    for (const auto& service : made) {
      BindFiles(service->database());
      Begin(service);
      if (!IsFileOpen(service->database()->path())) (void)service->Stop(1);
    }
    MutexLock lock(mutex_);
    if (!waiter_runs_) return;
  }
}

// Databases that are closed one after the other, as at the application's end, have one bound together. What a close
// that flushed everything took is not counted; what one waited in vain comes back little by little, for applications
// that open and close all the time.
int64_t Hub::CloseLeft(int64_t now) const {
  const int64_t most = config_.shutdown_timeout;
  return std::min(most, std::min(most, close_left_) + (now - last_close_) / kCloseShare);
}

void Hub::LastClose(const std::shared_ptr<Database>& database) {
  std::shared_ptr<Service> service = FindService(database->path());
  if (service == nullptr) return;
  int64_t begun = 0;
  int64_t timeout = 0;
  {
    MutexLock lock(mutex_);
    begun = SystemClock().SteadyMicros();
    close_left_ = CloseLeft(begun);
    timeout = close_left_ >= std::min(kLeastClose, config_.shutdown_timeout) ? std::max<int64_t>(close_left_, 1) : 1;
  }
  const Service::Flush flush = service->Stop(timeout);
  {
    MutexLock lock(mutex_);
    last_close_ = SystemClock().SteadyMicros();
    if (flush == Service::Flush::kSent) close_left_ = config_.shutdown_timeout;
    if (flush == Service::Flush::kLeft) close_left_ = std::max<int64_t>(close_left_ - (last_close_ - begun), 0);
  }
  // Opened again by another thread meanwhile; and perhaps closed again, after which nobody would stop it.
  if (OpenFiles(database->path()) == 0) return;
  (void)service->Start();
  if (OpenFiles(database->path()) == 0) (void)service->Stop(1);
}

int Hub::AfterCommit(Database* database) {
  Status status = WaitSynced(database->control(), database->commit_wait());
  if (status.ok()) return SQLITE_OK;
  sqlite3_log(SQLITE_IOERR, "libreplica: sync=commit: %s: %s", database->path().c_str(), status.message().c_str());
  return SQLITE_IOERR;
}

void Hub::StopAll() {
  std::map<std::string, std::shared_ptr<Service>> services;
  int64_t left = 0;
  {
    MutexLock lock(mutex_);
    services = services_;
    // What closes have waited in vain is not waited for again.
    left = std::max<int64_t>(CloseLeft(SystemClock().SteadyMicros()), 1);
  }
  // One bound for all of them together; what cannot be sent waits in the spool for the next start.
  const int64_t end = SystemClock().SteadyMicros() + left;
  for (const auto& [path, service] : services) service->BeginStop(left);
  for (const auto& [path, service] : services)
    service->AwaitStopped(std::max<int64_t>(end - SystemClock().SteadyMicros(), 1));
}

namespace {

// A main that ends by pthread_exit leaves the process to its other threads, and the process ends with the last of them:
// ours must not keep it alive. They block all signals, so that nothing else could end it either.
void EndWithTheOthers() {
  while (!OnlyOwnThreadsRemain()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  try {
    Hub::Get().StopAll();
  } catch (const std::exception&) {
    // As at exit.
  }
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_UNBLOCK, &all, nullptr);  // one that came meanwhile does what it does by default
  std::exit(0);                                 // as the last thread of a process does
}

void MainThreadEnds(void* /*value*/) {
  try {
    auto thread = StartThread("replica-end", EndWithTheOthers);
    if (thread.ok()) thread->detach();
  } catch (const std::exception&) {
    // No memory: the process ends when somebody ends it.
  }
}

}  // namespace

void Hub::WatchMainThread() {
  if (::getpid() != ::gettid()) return;
  // A thread's own data is destroyed when main calls pthread_exit, and not when it returns or calls exit. (The
  // destructors of thread_local objects do not run then: glibc calls these for other threads only.)
  static const pthread_key_t key = [] {
    pthread_key_t made = 0;
    (void)pthread_key_create(&made, MainThreadEnds);
    return made;
  }();
  (void)pthread_setspecific(key, &Hub::instance_);
}

void Hub::AtExit() {
  try {
    Get().StopAll();
  } catch (const std::exception&) {
    // No memory: what is not sent waits in the spool and the WAL for the next start.
  }
}

// What the child looks at is whole then, and no thread of ours is inside SQLite.
void Hub::BeforeFork() {
  Get().mutex_.Lock();
  HoldFilesForFork();
}

void Hub::AfterForkInParent() {
  ReleaseFilesAfterFork();
  Get().mutex_.Unlock();
}

void Hub::AfterForkInChild() {
  // No thread of the parent's lives here, and its mutexes are locked: everything starts anew. What the old hub owns is
  // left as it is, but for descriptors that would keep the parent's locks alive after it.
  Hub* old = instance_;
  auto* fresh = new Hub;
  [&]() NO_THREAD_SAFETY_ANALYSIS {
    fresh->loaded_ = old->loaded_;
    fresh->config_ = old->config_;
    fresh->restores_ = old->restores_;
    if (old->uploader_ != nullptr) old->uploader_->ForgetAfterFork();
    for (auto& [path, service] : old->services_) service->database()->ForgetAfterFork();
    for (auto& [path, weak] : old->databases_)
      if (auto database = weak.lock()) database->ForgetAfterFork();
  }();
  instance_ = fresh;
  ForgetThreadsAfterFork();
  ForgetFilesAfterFork();
}

}  // namespace replica

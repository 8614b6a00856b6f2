// The process's one global: its configuration, and every database that is replicated in it.
//
// Created when the extension is loaded, never destroyed; after fork() the child gets a fresh one with the same
// configuration and none of the parent's services. Thread-safe.
#ifndef LIBREPLICA_EXT_HUB_H_
#define LIBREPLICA_EXT_HUB_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/thread_annotations.h"
#include "base/worker.h"
#include "config/config.h"
#include "ext/service.h"
#include "uploader/endpoint.h"
#include "uploader/http.h"
#include "vfs/database.h"

namespace replica {

class Hub {
 public:
  static Hub& Get();

  // Reads the environment and installs the shim's hooks; the first call does it, later ones return the same answer.
  // kInvalidArgument: a setting is wrong, or a required replica is not configured.
  Status Load() EXCLUDES(mutex_);
  // The same with a configuration that the caller has read. `dedicated`: uploading is what this process is for, so
  // others leave it to this one.
  Status Load(Config config, bool dedicated) EXCLUDES(mutex_);
  Config config() EXCLUDES(mutex_);

  // Replicates a database (absolute path) to `url` from now on. An attachment to the same URL is replaced.
  Status Attach(const std::string& path, const std::string& url, const AttachOptions& options) EXCLUDES(mutex_);
  // Stops replicating it in this process, after a flush. kNotFound when it is not attached.
  Status Detach(const std::string& path) EXCLUDES(mutex_);

  // Flushes all databases of this process within the shutdown timeout and stops replicating them, for its end.
  void StopAll() EXCLUDES(mutex_);

  // For a database that was opened before the load. kExists: it is empty, though with REPLICA_RESTORE=auto it would
  // have been restored; nobody may begin anew in it.
  Status BeforeAdoption(const std::string& path, const char* name) EXCLUDES(mutex_);

  // The service of a database, or null.
  std::shared_ptr<Service> FindService(const std::string& path) EXCLUDES(mutex_);
  // The database with its control block, when this or another process replicates it; or null.
  std::shared_ptr<Database> FindDatabase(const std::string& path) EXCLUDES(mutex_);
  // True when a replica is required and this database has none, for a reason that Trouble tells.
  bool Refused(const std::string& path) EXCLUDES(mutex_);
  // Notes why a database that is to be replicated is not, for status. True when a replica is required.
  bool NotReplicated(const std::string& path, const std::string& why) EXCLUDES(mutex_);
  // Why the database is not replicated although it should be; empty when there is no such reason.
  std::string Trouble(const std::string& path) EXCLUDES(mutex_);
  // Why a database that no trouble is known of is not replicated, and what to do.
  std::string WhyNot(const std::string& path) EXCLUDES(mutex_);
  // Paths of the databases known in this process, sorted.
  std::vector<std::string> Paths() EXCLUDES(mutex_);

  // The store of a replicated database: of this process's service, of the configuration, or, when another process
  // replicates it into a folder, of what its control block says.
  Result<std::shared_ptr<Store>> StoreFor(const std::string& path) EXCLUDES(mutex_);
  // A store for a URL: connections and threads are shared by all of the process.
  Result<std::shared_ptr<Store>> OpenStore(const std::string& url, const AttachOptions& options) EXCLUDES(mutex_);

  // Starts a service that could not be started for want of a thread.
  void StartAgain(const std::string& path) EXCLUDES(mutex_);

  // A service has ended because its replica folder or control block was removed or replaced, while the application has
  // the database open: another one takes its place.
  void Replace(const std::shared_ptr<Service>& service) EXCLUDES(mutex_);

 private:
  struct Target {
    std::string url;
    AttachOptions options;
  };

  Hub() = default;

  class PathTurn;
  Status DetachService(const std::string& path) EXCLUDES(mutex_);
  // True when the configuration wants the database replicated.
  bool Wanted(const std::string& path, const char* name) EXCLUDES(mutex_);
  Status RestoreMissing(const std::string& path, const char* name, bool may_create) EXCLUDES(mutex_);
  Status BeforeOpen(const std::string& path, const char* name, bool may_create) EXCLUDES(mutex_);
  std::shared_ptr<Database> WalOpened(const std::string& path, const char* name) EXCLUDES(mutex_);
  // Starts the service of a database that the application has begun to use.
  void InUse(Database* database) EXCLUDES(mutex_);
  // Starts a service. Its files are bound before: what happens after Start has looked at the file must not go unseen.
  void Begin(const std::shared_ptr<Service>& service) EXCLUDES(mutex_);
  void TryLater(const std::string& path, const Target& target) REQUIRES(mutex_);
  // The thread that tries again; ends when nothing waits any more.
  void Wait() EXCLUDES(mutex_);
  void LastClose(const std::shared_ptr<Database>& database) EXCLUDES(mutex_);
  // µs that a close may wait for the store now.
  int64_t CloseLeft(int64_t now) const REQUIRES(mutex_);
  int AfterCommit(Database* database);
  // Where URI parameter or configuration want a database replicated; an empty URL for nowhere.
  Target TargetFor(const std::string& path, const char* name) REQUIRES(mutex_);
  Result<std::shared_ptr<Service>> MakeService(const std::string& path, const std::string& url,
                                               const AttachOptions& options) REQUIRES(mutex_);
  Result<std::shared_ptr<Store>> OpenStoreLocked(const std::string& url, const AttachOptions& options) REQUIRES(mutex_);
  void SetHooks();
  static void AtExit();
  // Called in any thread that uses the library: sees main end.
  static void WatchMainThread();
  static void BeforeFork() NO_THREAD_SAFETY_ANALYSIS;
  static void AfterForkInParent() NO_THREAD_SAFETY_ANALYSIS;
  static void AfterForkInChild();

  static Hub* instance_;

  Mutex mutex_;
  bool loaded_ GUARDED_BY(mutex_) = false;
  bool dedicated_ GUARDED_BY(mutex_) = false;
  Config config_ GUARDED_BY(mutex_);
  int64_t close_left_ GUARDED_BY(mutex_) = INT64_MAX;  // µs that closes may still wait together, as of …
  int64_t last_close_ GUARDED_BY(mutex_) = 0;          // … steady µs: when LastClose last came to its end
  bool restores_ GUARDED_BY(mutex_) = false;           // some database is to be restored when it is missing
  std::map<std::string, std::shared_ptr<Service>> services_ GUARDED_BY(mutex_);
  std::map<std::string, std::weak_ptr<Database>> databases_ GUARDED_BY(mutex_);
  std::map<std::string, std::string> troubles_ GUARDED_BY(mutex_);
  std::set<std::string> attaching_ GUARDED_BY(mutex_);  // paths that are attached or detached just now
  std::condition_variable attached_;
  std::map<std::string, Target> waiting_ GUARDED_BY(mutex_);  // by path: cannot be replicated just now
  bool waiter_runs_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<HttpClient> http_ GUARDED_BY(mutex_);
  EndpointTable endpoints_ GUARDED_BY(mutex_);
  // By whom their files belong to (ActAsOwner in cli/session.h); in an application there is one.
  std::map<uid_t, std::shared_ptr<Worker>> file_workers_ GUARDED_BY(mutex_);
  UploaderProcess* uploader_ GUARDED_BY(mutex_) = nullptr;  // never destroyed: its thread runs as long as the process
};

}  // namespace replica

#endif  // LIBREPLICA_EXT_HUB_H_

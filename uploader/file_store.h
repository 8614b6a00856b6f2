// A store in a folder: file:///dir. Objects are files; a PUT writes beside the target, fsyncs, and links it into place
// (link(2) never overwrites, so if_absent is atomic), then fsyncs the folder. The names of the folders themselves are
// fsynced in their parents before the first PUT into them is answered. Needs a file system with hard links.
#ifndef LIBREPLICA_UPLOADER_FILE_STORE_H_
#define LIBREPLICA_UPLOADER_FILE_STORE_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "base/worker.h"
#include "uploader/store.h"

namespace replica {

class FileStore : public Store {
 public:
  // `folder` is absolute; it is created by the first PUT. `worker` runs the PUTs and outlives the store.
  FileStore(std::string folder, std::shared_ptr<Worker> worker, std::shared_ptr<Endpoint> endpoint = nullptr);

  const std::string& url() const override { return url_; }
  void PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) override;
  Result<std::string> Get(const std::string& key, uint64_t offset, uint64_t size) override;
  Result<uint64_t> Size(const std::string& key) override;
  Result<Listing> List(const std::string& prefix, const std::string& start_after, bool folders_only) override;
  Status Delete(const std::vector<std::string>& keys) override;
  Result<int64_t> ServerTime() override { return SystemClock().WallMicros(); }

 private:
  // Folders whose names are known to be durable, as far up as the URL's own folder. Shared with PUTs that outlive us.
  struct Durable {
    Mutex mutex;
    std::set<std::string> folders GUARDED_BY(mutex);
  };
  // Tells the endpoint what came of a call that began at `begun`. A file system that fails or is full concerns all
  // databases there; a name or a permission one of them.
  static void Report(Endpoint* endpoint, int64_t begun, const Status& status);
  static Status PutFile(const std::string& root, const std::string& path, const ObjectBody& body, bool if_absent,
                        Durable* durable);
  static Status MakeDurable(const std::string& root, const std::string& folder, Durable* durable);

  const std::string folder_;
  const std::string url_;
  const std::shared_ptr<Worker> worker_;
  const std::shared_ptr<Durable> durable_ = std::make_shared<Durable>();
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_FILE_STORE_H_

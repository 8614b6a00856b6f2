// Where a replica's objects are kept. Keys are relative to the replica's URL: "<generation>/log/<seq>".
//
// Every method may be called from any thread. Errors: kNotFound (no such key), kExists (if_absent and the key is
// there), kUnavailable (try again later), kPermission (credentials or rights), kUnsupported (the store cannot do it),
// kCorrupt (a PUT whose body does not have its SHA-256, or an answer that makes no sense), and the codes of base/fs.h
// for a folder. Messages name the object by its full URL and never hold a credential.
#ifndef LIBREPLICA_UPLOADER_STORE_H_
#define LIBREPLICA_UPLOADER_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "uploader/endpoint.h"

namespace replica {

// What a PUT sends: a file that stays as it is until the PUT is done, or bytes.
struct ObjectBody {
  std::string path;  // a file, or empty for `bytes`
  std::string bytes;
  uint64_t size = 0;   // bytes to send
  std::string sha256;  // of them, lower-case hex

  static ObjectBody FromBytes(std::string bytes);
  static ObjectBody FromFile(std::string path, uint64_t size, std::string sha256);
};

struct ObjectInfo {
  std::string key;
  uint64_t size = 0;  // bytes
};

struct Listing {
  std::vector<ObjectInfo> objects;   // sorted by key
  std::vector<std::string> folders;  // with `delimiter`: common prefixes, each ending in '/', sorted
};

// Tries of a call that waits (Get, Size, List, Delete, Put) while the store asks to come back or drops the connection.
// While the endpoint is down such a call is one try.
constexpr int kStoreTries = 4;

class Store {
 public:
  using Done = std::function<void(Status)>;

  // `endpoint` is shared by all stores of the process that fail together; null: this one is alone.
  explicit Store(std::shared_ptr<Endpoint> endpoint = nullptr);
  virtual ~Store() = default;

  // Stores report to it. Engines ask it before they send.
  const std::shared_ptr<Endpoint>& endpoint() const { return endpoint_; }

  // The URL without secrets: "s3://bucket/prefix", "file:///dir".
  virtual const std::string& url() const = 0;

  // Stores an object; a reader sees all of it or nothing. With `if_absent` an existing key is kExists and is left
  // alone, atomically against other writers. `done` is called once, on a thread of the store's: it must not block.
  virtual void PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) = 0;

  // `size` bytes at `offset`; fewer only at the object's end.
  virtual Result<std::string> Get(const std::string& key, uint64_t offset, uint64_t size) = 0;
  virtual Result<uint64_t> Size(const std::string& key) = 0;
  // All keys that start with `prefix`, after `start_after` when that is not empty. `folders_only` stops at the next
  // '/'.
  virtual Result<Listing> List(const std::string& prefix, const std::string& start_after, bool folders_only) = 0;
  // Keys that are not there are no error.
  virtual Status Delete(const std::vector<std::string>& keys) = 0;

  // The store's own clock, wall clock microseconds (to the second); a folder's is this machine's.
  virtual Result<int64_t> ServerTime() = 0;

  // Waits for PutAsync; kUnavailable is tried again kStoreTries times. With `if_absent` a try whose answer was lost
  // makes the next one kExists: compare the stored object before taking that for a rival.
  Status Put(const std::string& key, const ObjectBody& body, bool if_absent);

 protected:
  int Tries() const { return endpoint_->down() ? 1 : kStoreTries; }

 private:
  const std::shared_ptr<Endpoint> endpoint_;
};

// "s3://bucket/prefix/key" for messages.
inline std::string ObjectUrl(const Store& store, const std::string& key) {
  return store.url() + "/" + key;
}

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_STORE_H_

#include "uploader/store.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/bytes.h"
#include "base/call_off.h"
#include "base/sha256.h"

namespace replica {
namespace {

constexpr int64_t kPatience = EndpointBackoff::kLongestDelay;  // µs: what asks for more is not waited for

}  // namespace

ObjectBody ObjectBody::FromBytes(std::string bytes) {
  ObjectBody body;
  const Sha256::Digest digest = Sha256::Of(bytes);
  body.sha256 = HexEncode(digest.data(), digest.size());
  body.size = bytes.size();
  body.bytes = std::move(bytes);
  return body;
}

ObjectBody ObjectBody::FromFile(std::string path, uint64_t size, std::string sha256) {
  ObjectBody body;
  body.path = std::move(path);
  body.size = size;
  body.sha256 = std::move(sha256);
  return body;
}

Store::Store(std::shared_ptr<Endpoint> endpoint)
    : endpoint_(endpoint != nullptr ? std::move(endpoint) : std::make_shared<Endpoint>("", SystemClock())) {}

Status Store::Put(const std::string& key, const ObjectBody& body, bool if_absent) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    Status status;
  };
  Status status;
  const int tries = Tries();
  for (int attempt = 0; attempt < tries; attempt++) {
    if (attempt > 0) {
      // It may have said when to come back.
      if (endpoint_->next_try() > SystemClock().SteadyMicros() + kPatience) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50 << attempt));
    }
    auto waiting = std::make_shared<Waiting>();
    PutAsync(key, body, if_absent, [waiting](Status result) {
      std::lock_guard<std::mutex> lock(waiting->mutex);
      waiting->status = std::move(result);
      waiting->done = true;
      waiting->changed.notify_all();
    });
    std::unique_lock<std::mutex> lock(waiting->mutex);
    while (!waiting->changed.wait_for(lock, std::chrono::microseconds(kCallOffLook), [&] { return waiting->done; }))
      if (CallOff::Asked()) return {Code::kInterrupted, "called off while waiting for the store"};
    status = waiting->status;
    if (status.code() != Code::kUnavailable) break;
  }
  return status;
}

}  // namespace replica

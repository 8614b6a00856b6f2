// HTTP over libcurl's multi interface: one network thread for the whole process, connections kept alive.
//
// Thread-safe. The thread starts with the first request and blocks all signals. Memory is bounded by the response
// limits and by two 64 KiB buffers a transfer; request bodies stream from their file.
#ifndef LIBREPLICA_UPLOADER_HTTP_H_
#define LIBREPLICA_UPLOADER_HTTP_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/thread_annotations.h"
#include "uploader/store.h"

typedef void CURL;   // NOLINT: libcurl's own names
typedef void CURLM;  // NOLINT

namespace replica {

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, PUT, POST
  std::string url;
  std::vector<std::string> headers;    // "name: value"
  ObjectBody body;                     // for PUT and POST
  std::string ca_file;                 // PEM bundle instead of the system's
  uint64_t response_limit = 16 << 20;  // more bytes than that fail the request
};

struct HttpResponse {
  long status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;
  int64_t retry_after = 0;  // µs, of the header Retry-After; 0: there is none
};

class HttpClient {
 public:
  using Done = std::function<void(Result<HttpResponse>)>;

  HttpClient();
  ~HttpClient();  // fails what is under way and joins the thread
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // `done` is called once, on the network thread (or, when none can be started, in the caller's): it must neither block
  // nor throw. Any HTTP status is a response; an error is a
  // transfer that did not come to one (kUnavailable; kPermission for a certificate that does not verify).
  void Start(HttpRequest request, Done done) EXCLUDES(mutex_);
  // Waits for Start, or until it is called off (base/call_off.h): kInterrupted. Not to be called on the network thread.
  Result<HttpResponse> Perform(HttpRequest request);

 private:
  struct Transfer;

  void Run();
  void Begin(std::unique_ptr<Transfer> transfer);
  void Complete(CURL* easy, int curl_code);

  CURLM* const multi_;
  std::map<CURL*, std::unique_ptr<Transfer>> active_;  // network thread only
  std::vector<CURL*> idle_;                            // network thread only; reused handles
  Mutex mutex_;
  std::deque<std::unique_ptr<Transfer>> queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_HTTP_H_

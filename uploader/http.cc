#include "uploader/http.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>

#include "base/call_off.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/worker.h"

namespace replica {
namespace {

constexpr long kConnectTimeoutMs = 10000;
// A transfer slower than this for so long is dead: the next try may get a better connection.
constexpr long kStallBytesPerSecond = 64;
constexpr long kStallSeconds = 30;
// And none lasts longer than this, however it drips: by the bytes that it may have.
constexpr int64_t kMaxRequestMs = 60000;
constexpr uint64_t kMinBytesPerMs = 32;
constexpr size_t kMaxHeaders = 100;
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr size_t kIdleHandles = 16;
constexpr curl_off_t kMaxRetryAfterSeconds = 24 * 3600;  // a store may send any number

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); });
  return out;
}

std::string Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

// "https://host:port" of a URL, for messages.
std::string EndpointOf(const std::string& url) {
  const size_t host = url.find("://");
  return host == std::string::npos ? url : url.substr(0, url.find('/', host + 3));
}

void InitCurl() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw std::bad_alloc();
  });
}

}  // namespace

struct HttpClient::Transfer {
  HttpRequest request;
  Done done;
  HttpResponse response;
  UniqueFd file;
  uint64_t sent = 0;
  bool too_long = false;
  bool no_memory = false;
  size_t header_bytes = 0;
  Status body_error;
  curl_slist* headers = nullptr;
  char error[CURL_ERROR_SIZE] = "";
  const int64_t begun = SystemClock().SteadyMicros();

  // A request may take a minute, and longer as far as it gets on: what it may carry does not count, a store could drip.
  static int OnProgress(void* self, curl_off_t, curl_off_t received, curl_off_t, curl_off_t sent) {
    const auto* t = static_cast<Transfer*>(self);
    const int64_t most = kMaxRequestMs + static_cast<int64_t>(received + sent) / static_cast<int64_t>(kMinBytesPerMs);
    return (SystemClock().SteadyMicros() - t->begun) / 1000 > most ? 1 : 0;
  }

  ~Transfer() { curl_slist_free_all(headers); }

  // A request that lacks one, If-None-Match say, would be another request.
  void AddHeader(const std::string& header) {
    curl_slist* longer = curl_slist_append(headers, header.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    headers = longer;
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* self) {
    auto* t = static_cast<Transfer*>(self);
    if (t->response.body.size() + size * count > t->request.response_limit) {
      t->too_long = true;
      return 0;
    }
    return AtEdge(t, [&] {
      t->response.body.append(data, size * count);
      return size * count;
    });
  }

  // Runs in libcurl's frames, which no exception may cross: 0 bytes taken end the transfer.
  template <typename Body>
  static size_t AtEdge(Transfer* t, const Body& body) noexcept {
    try {
      return body();
    } catch (const std::exception&) {
      t->no_memory = true;
      return 0;
    }
  }

  static size_t OnHeader(char* data, size_t size, size_t count, void* self) {
    auto* t = static_cast<Transfer*>(self);
    std::string_view line(data, size * count);
    // A status line starts a new header block (after an answer of 1xx).
    return AtEdge(t, [&] {
      if (line.rfind("HTTP/", 0) == 0) t->response.headers.clear();
      const size_t colon = line.find(':');
      t->header_bytes += line.size();
      if (colon != std::string_view::npos && t->response.headers.size() < kMaxHeaders &&
          t->header_bytes < kMaxHeaderBytes)
        t->response.headers[Lower(line.substr(0, colon))] = Trim(line.substr(colon + 1));
      return size * count;
    });
  }

  static size_t OnRead(char* out, size_t size, size_t count, void* self) {
    auto* t = static_cast<Transfer*>(self);
    const ObjectBody& body = t->request.body;
    const auto n = static_cast<size_t>(std::min<uint64_t>(size * count, body.size - t->sent));
    if (body.path.empty()) {
      std::memcpy(out, body.bytes.data() + t->sent, n);
    } else {
      auto got = ReadAt(t->file.get(), out, n, t->sent, body.path);
      if (!got.ok() || *got != n) {
        t->body_error = got.ok() ? Status(Code::kIo, body.path + " became shorter while it was sent") : got.status();
        return CURL_READFUNC_ABORT;
      }
    }
    t->sent += n;
    return n;
  }

  static int OnSeek(void* self, curl_off_t offset, int origin) {
    if (origin != SEEK_SET || offset < 0) return CURL_SEEKFUNC_CANTSEEK;
    static_cast<Transfer*>(self)->sent = static_cast<uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
  }
};

HttpClient::HttpClient() : multi_((InitCurl(), curl_multi_init())) {
  if (multi_ == nullptr) throw std::bad_alloc();
}

HttpClient::~HttpClient() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
  }
  curl_multi_wakeup(multi_);
  if (thread.joinable()) thread.join();
  for (CURL* easy : idle_) curl_easy_cleanup(easy);
  curl_multi_cleanup(multi_);
}

void HttpClient::Start(HttpRequest request, Done done) {
  auto transfer = std::make_unique<Transfer>();
  transfer->request = std::move(request);
  transfer->done = std::move(done);
  Status failed;
  {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(transfer));
    if (!thread_.joinable()) {
      auto thread = StartThread("replica-net", [this] { Run(); });
      if (!thread.ok()) {
        transfer = std::move(queue_.back());
        queue_.pop_back();
        failed = thread.status();
      } else {
        thread_ = std::move(*thread);
      }
    }
  }
  if (transfer != nullptr) {
    transfer->done(failed);
    return;
  }
  curl_multi_wakeup(multi_);
}

Result<HttpResponse> HttpClient::Perform(HttpRequest request) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    Result<HttpResponse> result{HttpResponse{}};
  };
  auto waiting = std::make_shared<Waiting>();
  Start(std::move(request), [waiting](Result<HttpResponse> result) {
    std::lock_guard<std::mutex> lock(waiting->mutex);
    waiting->result = std::move(result);
    waiting->done = true;
    waiting->changed.notify_all();
  });
  std::unique_lock<std::mutex> lock(waiting->mutex);
  while (!waiting->changed.wait_for(lock, std::chrono::microseconds(kCallOffLook), [&] { return waiting->done; }))
    if (CallOff::Asked()) return Status(Code::kInterrupted, "called off while waiting for the store");
  return std::move(waiting->result);
}

void HttpClient::Run() {
  // Of all databases: not as the owner of the one whose thread came first (see ActAsOwner in cli/session.h).
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
  for (;;) {
    std::deque<std::unique_ptr<Transfer>> started;
    bool stopping = false;
    {
      MutexLock lock(mutex_);
      started.swap(queue_);
      stopping = stopping_;
    }
    if (stopping) {
      const Status stopped(Code::kUnavailable, "the network thread is stopping");
      for (auto& transfer : started) transfer->done(stopped);
      for (auto& [easy, transfer] : active_) {
        curl_multi_remove_handle(multi_, easy);
        curl_easy_cleanup(easy);
        transfer->done(stopped);
      }
      active_.clear();
      return;
    }
    for (auto& transfer : started) {
      const std::shared_ptr<Done> done = std::make_shared<Done>(transfer->done);
      try {
        Begin(std::move(transfer));
      } catch (const std::exception& e) {
        (*done)(Status(Code::kUnavailable, std::string("the request could not be made: ") + e.what()));
      }
    }
    int running = 0;
    curl_multi_perform(multi_, &running);
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi_, &left))
      if (message->msg == CURLMSG_DONE) Complete(message->easy_handle, message->data.result);
    // With nothing under way this sleeps until curl_multi_wakeup; else curl shortens it to its own timers.
    curl_multi_poll(multi_, nullptr, 0, active_.empty() ? 3600 * 1000 : 1000, nullptr);
  }
}

void HttpClient::Begin(std::unique_ptr<Transfer> transfer) {
  Transfer* t = transfer.get();
  const HttpRequest& r = t->request;
  if (!r.body.path.empty()) {
    auto file = OpenOwnFile(r.body.path, O_RDONLY);
    if (!file.ok()) {
      t->done(file.status());
      return;
    }
    t->file = std::move(*file);
  }
  for (const std::string& header : r.headers) t->AddHeader(header);
  // Not "Expect: 100-continue": the body follows at once. Waiting would cost a round trip a PUT, and a second where a
  // proxy does not answer so.
  t->AddHeader("Expect:");
  CURL* easy = nullptr;
  if (!idle_.empty()) {
    easy = idle_.back();
    idle_.pop_back();
    curl_easy_reset(easy);
  } else {
    easy = curl_easy_init();
  }
  if (easy == nullptr) {
    t->done(Status(Code::kUnavailable, "libcurl gave no handle (out of memory?)"));
    return;
  }
  curl_easy_setopt(easy, CURLOPT_URL, r.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, kConnectTimeoutMs);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, &Transfer::OnProgress);
  curl_easy_setopt(easy, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
  if (!r.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, r.ca_file.c_str());
  if (r.method == "HEAD") {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  } else if (r.method == "PUT") {
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, &Transfer::OnRead);
    curl_easy_setopt(easy, CURLOPT_READDATA, t);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, &Transfer::OnSeek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(r.body.size));
  } else if (r.method == "POST") {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(r.body.bytes.size()));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r.body.bytes.c_str());
  }
  active_[easy] = std::move(transfer);
  if (curl_multi_add_handle(multi_, easy) != CURLM_OK) Complete(easy, CURLE_FAILED_INIT);
}

void HttpClient::Complete(CURL* easy, int curl_code) {
  auto found = active_.find(easy);
  if (found == active_.end()) return;
  std::unique_ptr<Transfer> t = std::move(found->second);
  active_.erase(found);
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &t->response.status);
  curl_off_t retry_after = 0;
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
  t->response.retry_after = int64_t{std::clamp<curl_off_t>(retry_after, 0, kMaxRetryAfterSeconds)} * 1000000;
  curl_multi_remove_handle(multi_, easy);
  if (idle_.size() < kIdleHandles) {
    idle_.push_back(easy);
  } else {
    curl_easy_cleanup(easy);
  }

  if (curl_code == CURLE_OK) {
    t->done(std::move(t->response));
    return;
  }
  if (!t->body_error.ok()) {
    t->done(t->body_error);
    return;
  }
  if (t->no_memory) {
    t->done(Status(Code::kUnavailable, "out of memory while an answer of the store was read"));
    return;
  }
  const std::string endpoint = EndpointOf(t->request.url);
  const std::string why = t->error[0] != 0 ? t->error : curl_easy_strerror(static_cast<CURLcode>(curl_code));
  switch (curl_code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
      t->done(Status(Code::kPermission, "the TLS certificate of " + endpoint + " does not verify (" + why +
                                            "); for a private CA set REPLICA_CA_FILE"));
      return;
    case CURLE_WRITE_ERROR:
      if (t->too_long) {
        t->done(Status(Code::kCorrupt, endpoint + " sent more than the " + std::to_string(t->request.response_limit) +
                                           " bytes that were asked for"));
        return;
      }
      break;
    default:
      break;
  }
  t->done(Status(Code::kUnavailable,
                 "no answer from " + endpoint + " (" + why + "); check REPLICA_ENDPOINT and the network"));
}

}  // namespace replica

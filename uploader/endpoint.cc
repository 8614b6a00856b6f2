#include "uploader/endpoint.h"

#include <algorithm>
#include <utility>

#include "base/fs.h"

namespace replica {
namespace {

constexpr int64_t kRetrySpread = 1000000;  // µs: not all processes come back in the same moment after a Retry-After

}  // namespace

bool EndpointBackoff::TryBegin(int64_t now) {
  if (!down()) return true;
  if (now < next_try()) return false;
  probe_begun_ = now;
  return true;
}

int64_t EndpointBackoff::next_try() const {
  if (!down()) return 0;
  const int64_t next = probe_begun_ != 0 ? probe_begun_ + kLongestDelay : next_probe_;
  return std::max(next, not_before_);
}

bool EndpointBackoff::Answered(int64_t now) {
  // While a Retry-After runs no engine begins a request. The answer is one to an earlier request.
  if (!down() || now < not_before_) return false;
  *this = EndpointBackoff();
  return true;
}

void EndpointBackoff::Failed(int64_t begun, int64_t now, int64_t retry_after, double jitter) {
  if (retry_after > 0) {
    const auto spread = static_cast<int64_t>(jitter * static_cast<double>(std::min(retry_after, kRetrySpread)));
    not_before_ = std::max(not_before_, now + std::min(retry_after, kLongestRetry) + spread);
  }
  // Requests that were under way when the outage began end one after the other. They are one failure.
  if (down() && (probe_begun_ == 0 || begun < probe_begun_)) return;
  if (!down()) down_since_ = now;
  probe_begun_ = 0;
  const int shift = std::min(failures_++, 5);
  const int64_t most = std::min(kFirstDelay << shift, kLongestDelay);
  next_probe_ = now + most / 2 + static_cast<int64_t>(jitter * static_cast<double>(most / 2));
}

Endpoint::Endpoint(std::string name, const Clock& clock)
    : name_(std::move(name)), clock_(clock), random_(std::random_device{}()) {}

bool Endpoint::TryBegin() {
  MutexLock lock(mutex_);
  return backoff_.TryBegin(clock_.SteadyMicros());
}

bool Endpoint::down() {
  MutexLock lock(mutex_);
  return backoff_.down();
}

int64_t Endpoint::down_since() {
  MutexLock lock(mutex_);
  return backoff_.down_since();
}

int64_t Endpoint::next_try() {
  MutexLock lock(mutex_);
  return backoff_.next_try();
}

std::string Endpoint::error() {
  MutexLock lock(mutex_);
  return error_;
}

void Endpoint::Answered() {
  MutexLock lock(mutex_);
  if (!backoff_.Answered(clock_.SteadyMicros())) return;
  for (const auto& [waiter, wake] : waiters_) wake();
}

void Endpoint::Failed(int64_t begun, int64_t retry_after, const std::string& error) {
  MutexLock lock(mutex_);
  const double jitter = std::uniform_real_distribution<double>(0, 1)(random_);
  const int64_t before = backoff_.next_try();
  backoff_.Failed(begun, clock_.SteadyMicros(), retry_after, jitter);
  error_ = error;
  count_.fetch_add(1);
  // Whoever looked while the probe was under way waits for its longest time.
  if (backoff_.next_try() < before)
    for (const auto& [waiter, wake] : waiters_) wake();
}

Endpoint::Waiter::Waiter(std::shared_ptr<Endpoint> endpoint, std::function<void()> wake)
    : endpoint_(std::move(endpoint)) {
  MutexLock lock(endpoint_->mutex_);
  endpoint_->waiters_[this] = std::move(wake);
}

Endpoint::Waiter::~Waiter() {
  MutexLock lock(endpoint_->mutex_);
  endpoint_->waiters_.erase(this);
}

std::shared_ptr<Endpoint> EndpointTable::Find(const std::string& name) {
  std::shared_ptr<Endpoint>& found = endpoints_[name];
  if (found == nullptr) found = std::make_shared<Endpoint>(name, SystemClock());
  return found;
}

std::string EndpointTable::NameOfUrl(const std::string& url) {
  const size_t host = url.find("://");
  std::string name = host == std::string::npos ? url : url.substr(0, url.find('/', host + 3));
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  const size_t port = name.find_last_of(":]");
  const bool has_port = host != std::string::npos && port != std::string::npos && port > host && name[port] == ':';
  if (has_port || host == std::string::npos) return name;
  return name + (name.rfind("https:", 0) == 0 ? ":443" : ":80");
}

std::string EndpointTable::NameOfFolder(const std::string& folder) {
  return "file://" + ParentFolder(folder);
}

}  // namespace replica

#include "cli/dashboard/access.h"

#include <arpa/inet.h>
#include <crypt.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/bytes.h"

namespace replica {
namespace {

constexpr int64_t kSecond = 1000000;
constexpr int64_t kIdle = int64_t{30} * 60 * kSecond;       // a session unused for as long has ended
constexpr int64_t kLongest = int64_t{12} * 3600 * kSecond;  // and so has one as old as this
constexpr size_t kMostSessions = 100;
constexpr size_t kMostAddresses = 1000;
constexpr size_t kMostKnown = 1000;
constexpr int kFreeTries = 5;                    // wrong passwords from one address before it must wait
constexpr int kFreeTriesOfAll = 50;              // from all addresses together, before each one more waits kFirstWait
constexpr int64_t kFirstWait = 10 * kSecond;     // doubled by each further one …
constexpr int64_t kLongestWait = 900 * kSecond;  // … up to this
constexpr int64_t kForget = 3600 * kSecond;      // failures as old as this are forgotten
constexpr size_t kLongestPassword = 500;         // crypt(3) takes 511 bytes

std::string Crypt(const std::string& password, const std::string& setting) {
  const auto data = std::make_unique<crypt_data>();
  const char* out = ::crypt_r(password.c_str(), setting.c_str(), data.get());
  // What libxcrypt answers for a setting it cannot use begins with a star.
  std::string hash = out == nullptr || *out == '*' ? "" : out;
  OPENSSL_cleanse(data.get(), sizeof(crypt_data));
  return hash;
}

}  // namespace

std::string Network(const std::string& address) {
  in6_addr six{};
  if (::inet_pton(AF_INET6, address.c_str(), &six) != 1) return address;
  if (IN6_IS_ADDR_V4MAPPED(&six) != 0) return address.substr(address.rfind(':') + 1);
  return HexEncode(six.s6_addr, 8) + "/64";
}

std::string RandomToken(size_t bytes) {
  std::vector<unsigned char> buffer(bytes);
  if (RAND_bytes(buffer.data(), static_cast<int>(bytes)) != 1) std::abort();  // without randomness nothing is safe
  return HexEncode(buffer.data(), bytes);
}

bool SameSecret(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Result<std::string> HashPassword(const std::string& password) {
  if (password.size() < 8)
    return Status(Code::kInvalidArgument, "the password is too short: give 8 characters or more");
  if (password.size() > kLongestPassword || password.find('\0') != std::string::npos)
    return Status(Code::kInvalidArgument, "the password is too long");
  char setting[CRYPT_GENSALT_OUTPUT_SIZE];
  // The library's preferred method, at its default cost.
  if (::crypt_gensalt_rn(nullptr, 0, nullptr, 0, setting, sizeof setting) == nullptr)
    return Status(Code::kInternal, "crypt_gensalt does not work here");
  const std::string hash = Crypt(password, setting);
  if (hash.empty()) return Status(Code::kInternal, "crypt does not work here");
  return hash;
}

bool IsPasswordHash(const std::string& hash) {
  // Every method of today begins with a dollar sign; without one any thirteen characters are a DES hash.
  return hash.rfind('$', 0) == 0 && Crypt("", hash).size() == hash.size();
}

Access::Access(std::string user, std::string hash, const Clock& clock)
    : user_(std::move(user)), hash_(std::move(hash)), clock_(clock) {}

int64_t Access::Wait(const std::string& address, int64_t now) {
  int64_t until = 0;
  for (const std::string& key : {address, std::string()}) {
    // Who has logged in from there before is not kept out by what others do.
    if (key.empty() && known_.count(address) != 0) continue;
    auto found = failures_.find(key);
    if (found == failures_.end()) continue;
    if (now - found->second.last > kForget) {
      failures_.erase(found);
    } else {
      until = std::max(until, found->second.until);
    }
  }
  return until > now ? (until - now + kSecond - 1) / kSecond : 0;
}

void Access::Failed(const std::string& address, int64_t now) {
  if (failures_.size() >= kMostAddresses && failures_.count(address) == 0) {
    auto oldest = failures_.end();
    for (auto it = failures_.begin(); it != failures_.end(); ++it)
      if (!it->first.empty() && (oldest == failures_.end() || it->second.last < oldest->second.last)) oldest = it;
    if (oldest != failures_.end()) failures_.erase(oldest);
  }
  for (const std::string& key : {address, std::string()}) {
    Failures& f = failures_[key];
    f.count++;
    f.last = now;
    if (key.empty()) {
      if (f.count >= kFreeTriesOfAll) f.until = now + kFirstWait;
      continue;
    }
    const int over = f.count - kFreeTries;
    if (over >= 0) f.until = now + std::min(kFirstWait << std::min(over, 10), kLongestWait);
  }
}

Access::LoginAnswer Access::Login(const std::string& user, const std::string& password, const std::string& caller) {
  LoginAnswer answer;
  const std::string address = Network(caller);
  // One at a time through the wait and the hash, so that many tries at once count one after the other.
  MutexLock one_at_a_time(crypt_mutex_);
  {
    MutexLock lock(mutex_);
    answer.retry_after = Wait(address, clock_.SteadyMicros());
    if (answer.retry_after > 0) return answer;
  }
  const bool fits = password.size() <= kLongestPassword && password.find('\0') == std::string::npos;
  const std::string hash = Crypt(fits ? password : "", hash_);
  const bool right = !hash.empty() && SameSecret(hash, hash_);
  const bool known = SameSecret(user, user_);
  const int64_t now = clock_.SteadyMicros();
  MutexLock lock(mutex_);
  if (!right || !known || !fits) {
    Failed(address, now);
    return answer;
  }
  failures_.erase(address);
  failures_.erase("");
  if (known_.size() >= kMostKnown) known_.erase(known_.begin());
  known_.insert(address);
  if (sessions_.size() >= kMostSessions) {
    auto oldest = std::min_element(sessions_.begin(), sessions_.end(),
                                   [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    sessions_.erase(oldest);
  }
  answer.token = RandomToken(32);
  answer.session = {user_, RandomToken(32), now, now};
  sessions_[answer.token] = answer.session;
  return answer;
}

std::optional<Access::Session> Access::Find(const std::string& token) {
  const int64_t now = clock_.SteadyMicros();
  MutexLock lock(mutex_);
  auto found = sessions_.find(token);
  if (found == sessions_.end()) return std::nullopt;
  if (now - found->second.used > kIdle || now - found->second.began > kLongest) {
    sessions_.erase(found);
    return std::nullopt;
  }
  found->second.used = now;
  return found->second;
}

void Access::Logout(const std::string& token) {
  MutexLock lock(mutex_);
  sessions_.erase(token);
}

}  // namespace replica

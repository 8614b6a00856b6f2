// Who may use the dashboard: password, sessions, limits on guessing. Thread-safe.
#ifndef LIBREPLICA_CLI_DASHBOARD_ACCESS_H_
#define LIBREPLICA_CLI_DASHBOARD_ACCESS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "base/thread_annotations.h"

namespace replica {

// `bytes` random bytes in hex, from the system's generator.
std::string RandomToken(size_t bytes);
// Compares in a time that does not tell where they differ.
bool SameSecret(const std::string& a, const std::string& b);

// Whom a limit is for: an address, or of IPv6 the /64, which one customer of a provider has.
std::string Network(const std::string& address);

// A crypt(5) hash of a password, for dashboard.password-hash.
Result<std::string> HashPassword(const std::string& password);
// True when `hash` has a form that this system's crypt(3) knows.
bool IsPasswordHash(const std::string& hash);

class Access {
 public:
  // One user; `hash` is a crypt(5) hash (yescrypt, bcrypt, sha512crypt …).
  Access(std::string user, std::string hash, const Clock& clock);

  struct Session {
    std::string user;
    std::string csrf;   // what every request that changes something must show
    int64_t began = 0;  // steady µs
    int64_t used = 0;
  };

  struct LoginAnswer {
    std::string token;  // the session's; empty: refused
    Session session;
    int64_t retry_after = 0;  // seconds to wait; 0: the password or the user is wrong
  };
  // `address` is the caller's, for the limits: of wrong passwords from one address (one /64 of IPv6), and from all
  // together, which slows those down who have not logged in before. Takes as long for an unknown user as for a wrong
  // password.
  LoginAnswer Login(const std::string& user, const std::string& password, const std::string& address) EXCLUDES(mutex_);
  // The session that a token belongs to, unless it has ended; counts as use.
  std::optional<Session> Find(const std::string& token) EXCLUDES(mutex_);
  void Logout(const std::string& token) EXCLUDES(mutex_);

 private:
  struct Failures {
    int count = 0;
    int64_t last = 0;   // steady µs
    int64_t until = 0;  // no try counts before
  };

  // Seconds until a login from there is looked at; 0: now.
  int64_t Wait(const std::string& address, int64_t now) REQUIRES(mutex_);
  void Failed(const std::string& address, int64_t now) REQUIRES(mutex_);

  const std::string user_;
  const std::string hash_;
  const Clock& clock_;
  Mutex mutex_;
  Mutex crypt_mutex_;                                            // one hash at a time: it is made to be slow
  std::map<std::string, Session> sessions_ GUARDED_BY(mutex_);   // by token
  std::map<std::string, Failures> failures_ GUARDED_BY(mutex_);  // by address, and "" for all of them
  std::set<std::string> known_ GUARDED_BY(mutex_);               // addresses from which somebody has logged in
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_ACCESS_H_

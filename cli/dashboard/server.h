// The dashboard's web server: its page, the JSON that the page asks for, /metrics and /healthz.
//
// What keeps others out: a login for all but the page's own files, /metrics and /healthz; sessions in HttpOnly,
// SameSite cookies; a CSRF token and a same-origin check on whatever changes something; the Host header checked, so
// that no other site's name can be pointed at a loopback address; a content security policy without inline code.
#ifndef LIBREPLICA_CLI_DASHBOARD_SERVER_H_
#define LIBREPLICA_CLI_DASHBOARD_SERVER_H_

#include <atomic>
#include <memory>
#include <string>

#include "cli/dashboard/access.h"
#include "cli/dashboard/jobs.h"
#include "cli/dashboard/listener.h"
#include "cli/dashboard/monitor.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace replica {

struct ServerOptions {
  ListenAddress listen;
  std::string certificate;  // PEM files; empty: plain HTTP
  std::string key;
  std::string public_host;    // host[:port] under which a reverse proxy offers it; empty: none does
  bool public_https = false;  // and that with TLS
  std::string metrics_token;  // empty: /metrics answers on loopback, and to who is logged in
  bool open_metrics = false;  // /metrics answers to all who reach it, unless there is a token
  bool page = true;           // false: /metrics and /healthz only
};

class Server {
 public:
  // All of them outlive the server. `session`, `access` and `jobs` may be null without a page.
  static Result<std::unique_ptr<Server>> Create(ServerOptions options, const Session* session, Monitor* monitor,
                                                Access* access, Jobs* jobs);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const ListenAddress& address() const { return options_.listen; }
  bool tls() const { return !options_.certificate.empty(); }

  // Serves until Stop.
  void Run();
  // Another thread than Run's, which has been called or is about to be: returns when it has ended.
  void Stop();

 private:
  Server(ServerOptions options, const Session* session, Monitor* monitor, Access* access, Jobs* jobs);

  using Request = httplib::Request;
  using Response = httplib::Response;
  using Handler = void (Server::*)(const Request&, Response&);

  void AddRoutes();
  void AddPage();
  // Handlers for who is logged in; for a POST with the CSRF token too.
  void OnGet(const char* path, Handler handler);
  void OnPost(const char* path, Handler handler);
  bool HostFits(const Request& request) const;
  bool SameOrigin(const Request& request) const;
  // All connections come from a proxy on this machine.
  bool BehindProxy() const;
  bool SecureCookies() const { return tls() || options_.public_https; }
  std::optional<Access::Session> SessionOf(const Request& request);
  // Who is asking: behind a reverse proxy on this machine, whom that says it is.
  std::string AddressOf(const Request& request) const;
  bool MayReadMetrics(const Request& request);

  void GetMetrics(const Request& request, Response& response);
  void GetHealth(const Request& request, Response& response);
  void PostLogin(const Request& request, Response& response);
  void PostLogout(const Request& request, Response& response);
  void GetSession(const Request& request, Response& response);
  void GetDatabases(const Request& request, Response& response);
  void GetSamples(const Request& request, Response& response);
  void GetHistory(const Request& request, Response& response);
  void GetEvents(const Request& request, Response& response);
  void GetConfig(const Request& request, Response& response);
  void GetJobs(const Request& request, Response& response);
  void PostVerify(const Request& request, Response& response);
  void PostSnapshot(const Request& request, Response& response);
  void PostRestore(const Request& request, Response& response);
  void StartJob(const std::string& kind, size_t database, const std::string& message, Jobs::Work work,
                Response& response);

  ServerOptions options_;
  const Session* const session_;
  Monitor* const monitor_;
  Access* const access_;
  Jobs* const jobs_;
  std::unique_ptr<httplib::Server> http_;
  std::atomic<bool> ended_{false};  // Run has come to its end
};

}  // namespace replica

#endif  // LIBREPLICA_CLI_DASHBOARD_SERVER_H_

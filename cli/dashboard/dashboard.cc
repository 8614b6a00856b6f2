// The dashboard command.
#include <signal.h>
#include <systemd/sd-daemon.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "base/worker.h"
#include "cli/commands.h"
#include "cli/dashboard/server.h"
#include "cli/exit_code.h"
#include "config/parse.h"

namespace replica {
namespace {

// A line from stdin, unseen when that is a terminal.
Result<std::string> ReadSecret(const std::string& prompt) {
  termios before{};
  const bool terminal = ::tcgetattr(STDIN_FILENO, &before) == 0;
  if (terminal) {
    std::cerr << prompt << std::flush;
    termios hidden = before;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    // Ctrl-C ends the line as well, so that the echo comes back.
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGINT, &action, nullptr);
    ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
  }
  std::string line;
  std::getline(std::cin, line);
  const bool read = !std::cin.fail();
  if (terminal) {
    ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    std::cerr << std::endl;
  }
  if (!read) return Status(Code::kInterrupted, "no password was given");
  return line;
}

int PrintHash(const Output& output) {
  auto secret = ReadSecret("Password: ");
  auto hash = secret.ok() ? HashPassword(*secret) : secret.status();
  if (!hash.ok()) {
    output.Error(hash.status());
    return ExitCodeOf(hash.status());
  }
  if (output.json()) {
    output.Json({{"hash", *hash}});
  } else {
    output.Line(*hash);
  }
  return kExitOk;
}

Status SetPublicUrl(const std::string& url, ServerOptions* options) {
  if (url.empty()) return Ok();
  std::string endpoint;
  Status status = ParseEndpoint(url, &endpoint);
  if (!status.ok()) return Invalid("dashboard.public-url: \"" + url + "\": give https://host, without a path");
  options->public_https = endpoint.rfind("https://", 0) == 0;
  std::string host = endpoint.substr(endpoint.find("://") + 3);
  // As browsers write it.
  for (char& c : host) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  const std::string port = options->public_https ? ":443" : ":80";
  if (host.size() > port.size() && host.compare(host.size() - port.size(), port.size(), port) == 0)
    host.resize(host.size() - port.size());
  options->public_host = host;
  return Ok();
}

Result<int> Dashboard(const Output& output, const Common& common, const DashboardArguments& arguments) {
  REPLICA_ASSIGN(auto session, Session::Create(common.config, false));
  const Config& config = session->config();
  std::vector<std::string> databases;
  if (!arguments.databases.empty()) {
    REPLICA_ASSIGN(databases, session->Databases(arguments.databases));
  }
  if (databases.empty() && !session->lists_databases()) REPLICA_TRY(session->Databases({}).status());

  ServerOptions options;
  const std::string listen =
      arguments.listen.empty() ? config.Get("dashboard.listen", "127.0.0.1:3030") : arguments.listen;
  REPLICA_ASSIGN(options.listen, ParseListenAddress(listen));
  options.certificate = config.Get("dashboard.tls-certificate");
  options.key = config.Get("dashboard.tls-key");
  options.metrics_token = config.Get("dashboard.metrics-token");
  REPLICA_TRY(SetPublicUrl(config.Get("dashboard.public-url"), &options));
  int64_t max_lag = 60000000;
  if (const std::string text = config.Get("dashboard.max-lag"); !text.empty())
    REPLICA_TRY(ParseDuration(text, &max_lag).In("dashboard.max-lag"));

  std::string hash = config.Get("dashboard.password-hash");
  if (!hash.empty() && !IsPasswordHash(hash))
    return Invalid(
        "dashboard.password-hash is no hash that crypt(3) knows: make one with replica dashboard --hash-password");
  if (!options.listen.loopback && !arguments.insecure) {
    const std::string rule = "listening on " + options.listen.Text() + ", which other machines reach, needs ";
    if (hash.empty()) return Invalid(rule + "dashboard.password-hash (replica dashboard --hash-password makes one)");
    if (options.certificate.empty())
      return Invalid(rule +
                     "TLS: set dashboard.tls-certificate and dashboard.tls-key, or put a TLS proxy before it and "
                     "listen on 127.0.0.1 (--insecure overrides this)");
  }
  std::string password;
  if (hash.empty()) {
    password = RandomToken(10);
    REPLICA_ASSIGN(hash, HashPassword(password));
  }

  const std::string user = config.Get("dashboard.user", "admin");
  Access access(user, hash, SystemClock());
  Monitor monitor(session.get(), databases, static_cast<double>(max_lag) / 1e6);
  Jobs jobs;
  REPLICA_ASSIGN(auto server, Server::Create(options, session.get(), &monitor, &access, &jobs));
  CatchSignals();
  const std::string url = (server->tls() ? "https://" : "http://") + server->address().Text() + "/";
  if (output.json()) {
    nlohmann::ordered_json started = {{"url", url}, {"user", user}};
    if (!password.empty()) started["password"] = password;
    output.Json(started);
  } else {
    output.Line("Dashboard: " + url + "   user: " + user +
                (password.empty() ? "" : "   password (for this run): " + password));
  }
  sd_notify(0, "READY=1");
  std::atomic<bool> ended{false};
  REPLICA_ASSIGN(std::thread watcher, StartThread("replica-stop", [&] {
                   while (!Interrupted() && !ended.load()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
                   server->Stop();
                 }));
  server->Run();
  ended.store(true);
  watcher.join();
  sd_notify(0, "STOPPING=1");
  return static_cast<int>(kExitOk);
}

}  // namespace

int RunDashboard(const Common& common, const DashboardArguments& arguments) {
  const Output output(common.output);
  if (arguments.hash_password) return PrintHash(output);
  auto done = Dashboard(output, common, arguments);
  if (done.ok()) return *done;
  output.Error(done.status());
  return done.status().code() == Code::kPermission ? kExitInput : ExitCodeOf(done.status());
}

}  // namespace replica

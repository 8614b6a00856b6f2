#include "cli/supervised.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/bytes.h"
#include "cli/exit_code.h"
#include "cli/session.h"
#include "ext/hub.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

constexpr int kBusy = 50;        // ms that opening a database may wait for a lock
constexpr int kTryAgain = 1000;  // ms between tries of what could not be opened

class Supervised {
 public:
  int Run() {
    std::string input;
    char buffer[65536];
    for (;;) {
      pollfd p = {STDIN_FILENO, POLLIN, 0};
      const int ready = ::poll(&p, 1, waiting_.empty() ? -1 : kTryAgain);
      if (ready < 0 && errno != EINTR) break;
      if (ready == 0) TryAgain();
      if (ready <= 0) continue;
      const ssize_t n = ::recv(STDIN_FILENO, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;  // the application is gone
      input.append(buffer, static_cast<size_t>(n));
      for (size_t end = input.find('\n'); end != std::string::npos; end = input.find('\n')) {
        if (!Take(input.substr(0, end))) return kExitFailed;
        input.erase(0, end + 1);
      }
    }
    if (loaded_) Hub::Get().StopAll();
    databases_.clear();
    return kExitOk;
  }

 private:
  struct Wanted {
    std::string url;
    std::string options;
    std::string told;  // the error that the application was told of
  };

  // False: it cannot go on.
  bool Take(const std::string& line) {
    const auto json = ordered_json::parse(line, nullptr, false);
    if (!json.is_object()) return true;
    if (json.contains("ping")) {
      Say({{"pong", json["ping"]}});
    } else if (json.contains("flush_ms") && !json.contains("detach")) {
      Config config;
      config.shutdown_timeout = json["flush_ms"].get<int64_t>() * 1000;
      if (!Hub::Get().Load(std::move(config), true).ok()) return false;
      InstallExtension();
      loaded_ = true;
      Say({{"pid", ::getpid()}});
    } else if (json.contains("attach")) {
      const std::string path = HexDecode(json["attach"].get<std::string>());
      waiting_[path] = {HexDecode(json["url"].get<std::string>()), json["options"].get<std::string>(), ""};
      TryOne(path);
    } else if (json.contains("detach")) {
      const std::string path = HexDecode(json["detach"].get<std::string>());
      waiting_.erase(path);
      databases_.erase(path);  // the last close flushes
      Say({{"detached", json["detach"]}});
    }
    return true;
  }

  // The application uploads it meanwhile.
  void TryOne(const std::string& path) {
    Wanted& wanted = waiting_[path];
    auto open = OpenDatabase::Open(path, kBusy);
    Status status = open.status();
    if (status.ok()) status = (*open)->Query("SELECT replica_attach(?, ?)", {wanted.url, wanted.options}).status();
    if (status.ok()) {
      databases_[path] = std::move(*open);
      waiting_.erase(path);
    } else if (wanted.told != status.message()) {
      wanted.told = status.message();
      Say({{"failed", HexEncode(path.data(), path.size())}, {"error", status.message()}});
    }
  }

  void TryAgain() {
    std::map<std::string, Wanted> all = waiting_;
    for (const auto& [path, wanted] : all) TryOne(path);
  }

  static void Say(const ordered_json& answer) {
    const std::string line = answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    if (::send(STDIN_FILENO, line.data(), line.size(), MSG_NOSIGNAL) < 0) return;  // it is gone: recv will tell
  }

  bool loaded_ = false;
  std::map<std::string, Wanted> waiting_;  // that could not be opened yet
  std::map<std::string, std::unique_ptr<OpenDatabase>> databases_;
};

}  // namespace

int RunSupervised() {
  // The application's own wait() shall not find us, its terminal's Ctrl-C not end us before it, and none of its
  // descriptors stay open in us.
  const pid_t pid = ::fork();
  if (pid != 0) ::_exit(pid < 0 ? kExitFailed : kExitOk);
  ::setsid();
  ::close_range(3, ~0U, 0);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  // A service manager that stops us all together: the application closes the socket, and that is when we flush.
  ::signal(SIGTERM, SIG_IGN);
  return Supervised().Run();
}

}  // namespace replica

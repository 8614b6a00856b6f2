#include "cli/child.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

#include <csignal>
#include <string_view>
#include <vector>

#include "config/parse.h"

namespace replica {

Status Child::Start(const std::string& command) {
  wordexp_t words{};
  const int wrong = ::wordexp(command.c_str(), &words, WRDE_NOCMD | WRDE_UNDEF);
  if (wrong != 0 || words.we_wordc == 0) {
    if (wrong == WRDE_NOSPACE) ::wordfree(&words);
    return Invalid(wrong == WRDE_BADCHAR || wrong == WRDE_CMDSUB
                       ? "--exec: a shell's | & ; < > ( ) { } and $() are not understood here: run sh -c '…'"
                   : wrong == WRDE_BADVAL ? "--exec: the command uses a variable that is not set"
                   : wrong == 0           ? "--exec: there is no command"
                                          : "--exec: a quote is not closed");
  }
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; entry++) {
    const std::string_view text = *entry;
    if (text.rfind("NOTIFY_SOCKET=", 0) != 0 && text.rfind("WATCHDOG_", 0) != 0) environment.push_back(*entry);
  }
  environment.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = ::posix_spawnp(&pid_, words.we_wordv[0], nullptr, &attributes, words.we_wordv, environment.data());
  posix_spawnattr_destroy(&attributes);
  Status status = error == 0 ? Ok() : ErrnoStatus(error, "start", words.we_wordv[0]);
  ::wordfree(&words);
  return status;
}

void Child::Signal(int signal) const {
  if (pid_ > 0) ::kill(pid_, signal);
}

void Child::ReapOthers() const {
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0 || info.si_pid == pid_) return;
    (void)::waitpid(info.si_pid, nullptr, WNOHANG);
  }
}

std::optional<int> Child::Ended() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = 0;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace replica

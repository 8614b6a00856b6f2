#include "cli/lost_mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

#include "base/control_block.h"

namespace replica {
namespace {

uintptr_t page_size;

// Synchronous, in the thread that made the access: only system calls.
void OnBusError(int signal, siginfo_t* info, void* /*context*/) {
  const int error = errno;
  auto* at = static_cast<char*>(info->si_addr);
  char* page = at - (reinterpret_cast<uintptr_t>(at) & (page_size - 1));
  if (info->si_code != BUS_ADRERR || !LoseControlPage(info->si_addr) ||
      ::mmap(page, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    // Back to the access, which ends the process now.
    ::signal(signal, SIG_DFL);
    return;
  }
  static constexpr char kText[] = "replica: a control block that is in use was cut short by somebody else\n";
  if (::write(STDERR_FILENO, kText, sizeof kText - 1) < 0) {
  }
  errno = error;
}

}  // namespace

void SurviveLostControlBlocks() {
  page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace replica

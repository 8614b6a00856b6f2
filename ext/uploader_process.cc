#include "ext/uploader_process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>

#include "base/byte_lock.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/worker.h"
#include "ext/replica.h"
#include "uploader/event_log.h"
#include "vfs/database.h"

namespace replica {
namespace {

constexpr int64_t kFirstPause = 100000;      // µs before a uploader that died is started again
constexpr int64_t kLongestPause = 30000000;  // µs
constexpr int64_t kLookAgain = 1000000;      // µs between looks whether another's uploader is still there
constexpr int64_t kForkTime = 10000000;      // µs for the command to fork and end
constexpr int64_t kPing = 5000000;           // µs between questions whether it is there
constexpr int64_t kSilence = 30000000;       // µs without an answer after which it is killed
constexpr int64_t kLivedWell = 10000000;     // µs: one that lived as long begins with the first pause again

// Paths and URLs of files are bytes, which JSON cannot hold: they go in hexadecimal.
std::string Hex(const std::string& bytes) {
  return HexEncode(bytes.data(), bytes.size());
}

bool IsDedicatedElsewhere(const std::string& database) {
  auto fd = OpenOwnFile(LockPath(Database::FolderOf(database)), O_RDWR);
  return fd.ok() && IsLocked(fd->get(), LockByte::kDedicated);
}

std::string FindCommand(const std::string& given) {
  if (!given.empty()) return given;
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&replica_version_string), &info) != 0 && info.dli_fname != nullptr) {
    const std::string folder = ParentFolder(info.dli_fname);
    // Beside the library (a build, a Python or npm package), or where an installation has its programs.
    for (const char* place : {"/replica", "/../bin/replica", "/../../bin/replica", "/../../../bin/replica"})
      if (::access((folder + place).c_str(), X_OK) == 0) return folder + place;
  }
  // Not by the PATH of a caller that has fewer rights than the program.
  return ::getauxval(AT_SECURE) != 0 ? "/usr/bin/replica" : "replica";
}

}  // namespace

UploaderProcess::UploaderProcess(const std::string& command, int64_t flush_micros)
    : command_(FindCommand(command)), flush_micros_(flush_micros) {}

void UploaderProcess::Wake() {
  const uint64_t one = 1;
  if (wake_.valid() && ::write(wake_.get(), &one, sizeof one) < 0) return;  // full: it will wake anyway
}

void UploaderProcess::Add(const std::string& path, const std::string& url, const AttachOptions& options) {
  const Json line = Json::Of("attach", Hex(path), "url", Hex(url), "options", OptionsAsJson(options));
  MutexLock lock(mutex_);
  const std::string text = line.Dump() + "\n";
  auto found = databases_.find(path);
  if (found != databases_.end() && found->second == text) return;
  databases_[path] = text;
  if (socket_.valid()) Send(text);
  if (running_) {
    Wake();
    return;
  }
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return;  // out of descriptors: this process goes on uploading by itself
  auto thread = StartThread("replica-upl", [this] { Run(); });
  if (!thread.ok()) return;  // this process goes on uploading by itself
  running_ = true;
  thread->detach();
}

bool UploaderProcess::Remove(const std::string& path, int64_t micros) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(micros);
  const Json line = Json::Of("detach", Hex(path), "flush_ms", micros / 1000);
  MutexLock lock(mutex_);
  if (databases_.erase(path) == 0) return true;
  if (!socket_.valid()) return false;
  leaving_.insert(path);
  Send(line.Dump() + "\n");
  while (leaving_.count(path) != 0 && socket_.valid() && std::chrono::steady_clock::now() < deadline)
    lock.WaitUntil(changed_, deadline);
  return leaving_.erase(path) == 0 || socket_.valid();
}

// A line is shorter than the socket's buffer, and the other side reads at once; if it is stopped, it is given up.
void UploaderProcess::Send(const std::string& line) {
  if (::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT) != static_cast<ssize_t>(line.size()))
    ::shutdown(socket_.get(), SHUT_RDWR);
}

Status UploaderProcess::Spawn() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return ErrnoStatus(errno, "make a socket for", command_);
  const int on = 1;
  (void)::setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);  // Receive
  {
    // Where ForgetAfterFork finds them: a child that kept one of them would keep the other side from seeing our end, or
    // us from seeing its.
    MutexLock lock(mutex_);
    starting_[0] = UniqueFd(ends[0]);
    starting_[1] = UniqueFd(ends[1]);
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  // Our threads block all signals, and a host may ignore some: neither is for the uploader.
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string program = command_;
  std::string verb = "replicate";
  std::string flag = "--supervised";
  char* arguments[] = {program.data(), verb.data(), flag.data(), nullptr};
  char* nothing[] = {nullptr};
  char** environment = ::getauxval(AT_SECURE) != 0 ? nothing : environ;
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, program.c_str(), &actions, &attributes, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  // It forks and ends at once, so that the uploader is no child that the application's own wait() would find.
  for (int64_t end = SystemClock().SteadyMicros() + kForkTime; error == 0;) {
    const pid_t gone = ::waitpid(pid, nullptr, WNOHANG);
    if (gone == pid || (gone < 0 && errno != EINTR)) break;
    if (SystemClock().SteadyMicros() > end) {
      // Another program: it would outlive us.
      ::kill(pid, SIGKILL);
      end = INT64_MAX;
    }
    const timespec pause = {0, 1000000};
    ::nanosleep(&pause, nullptr);
  }
  const Json hello = Json::Of("flush_ms", flush_micros_ / 1000);
  MutexLock lock(mutex_);
  starting_[1].Close();
  if (error != 0) {
    starting_[0].Close();
    return ErrnoStatus(error, "start the uploader",
                       command_ + " (set REPLICA_UPLOADER_COMMAND to the replica command)");
  }
  socket_ = std::move(starting_[0]);
  Send(hello.Dump() + "\n");
  for (const auto& [path, line] : databases_) Send(line);
  return Ok();
}

void UploaderProcess::Lost() {
  MutexLock lock(mutex_);
  socket_.Close();
  answers_.Clear();
  changed_.notify_all();
}

// Notes who speaks, in the kernel's words: it may be killed, so its own word is not enough.
ssize_t UploaderProcess::Receive(int socket, char* buffer, size_t size) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  iovec part = {buffer, size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(socket, &message, MSG_DONTWAIT);
  const cmsghdr* head = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (head != nullptr && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_CREDENTIALS) {
    ucred speaker{};
    std::memcpy(&speaker, CMSG_DATA(head), sizeof speaker);
    pid_ = speaker.pid;
  }
  return n;
}

void UploaderProcess::TakeAnswers() {
  while (const std::optional<UploaderAnswer> answer = answers_.Next()) {
    if (answer->pong) asked_at_ = 0;
    bool ours = false;
    {
      MutexLock lock(mutex_);
      ours = databases_.count(answer->failed) != 0;
      if (leaving_.erase(answer->detached) != 0) changed_.notify_all();
    }
    if (ours)
      EventLog(Database::FolderOf(answer->failed), SystemClock())
          .Add("uploader", "the uploader process cannot take it yet: " + answer->error);
  }
}

void UploaderProcess::LookAfter(int64_t now) {
  MutexLock lock(mutex_);
  // One that flushes answers afterwards. (Its own end is in Remove.)
  if (!leaving_.empty()) asked_at_ = 0;
  if (asked_at_ != 0 && now - asked_at_ > kSilence) {
    // Its socket is open, so it has not ended and the number is still its own.
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    ::shutdown(socket_.get(), SHUT_RDWR);
    asked_at_ = 0;
  } else if (asked_at_ == 0 && now >= ping_at_) {
    ping_at_ = now + kPing;
    asked_at_ = now;
    Send("{\"ping\": 1}\n");
  }
}

void UploaderProcess::Run() {
  int64_t pause = kFirstPause;
  int64_t started = 0;
  int64_t start_at = 0;
  bool ended = false;
  std::string told;  // the last error, told once
  for (;;) {
    const int64_t now = SystemClock().SteadyMicros();
    int socket = -1;
    int wake = -1;
    bool wanted = false;
    std::vector<std::string> paths;
    {
      MutexLock lock(mutex_);
      socket = socket_.get();
      wake = wake_.get();
      wanted = !databases_.empty();
      if (socket < 0 && now >= start_at)
        for (const auto& [path, line] : databases_) paths.push_back(path);
    }
    if (!paths.empty()) {
      // Where another process's uploader, or one that a person runs, does the work: be ready for when it ends.
      auto needed = std::find_if_not(paths.begin(), paths.end(), IsDedicatedElsewhere);
      if (needed == paths.end()) {
        start_at = now + kLookAgain;
        continue;
      }
      const EventLog events(Database::FolderOf(*needed), SystemClock());
      if (ended) events.Add("uploader", "the uploader process ended; starting it again");
      ended = false;
      pid_ = 0;
      asked_at_ = 0;
      ping_at_ = now + kPing;
      Status status = Spawn();
      started = SystemClock().SteadyMicros();
      if (!status.ok()) {
        if (status.message() != told) events.Add("error", status.message() + "; uploading in the application");
        told = status.message();
        start_at = started + pause;
        pause = std::min(pause * 2, kLongestPause);
      }
      continue;
    }
    pollfd polls[2] = {{wake, POLLIN, 0}, {socket, POLLIN, 0}};
    const int64_t next = socket < 0 ? start_at : asked_at_ != 0 ? asked_at_ + kSilence + 1 : ping_at_;
    const int timeout = wanted || socket >= 0 ? static_cast<int>(std::max<int64_t>(next - now, 0) / 1000 + 1) : -1;
    // What it has said comes first: this process may have been stopped itself.
    if (::poll(polls, socket < 0 ? 1 : 2, timeout) == 0 && socket >= 0) LookAfter(SystemClock().SteadyMicros());
    if ((polls[0].revents & POLLIN) != 0) {
      uint64_t count = 0;
      if (::read(wake, &count, sizeof count) < 0) continue;
    }
    if (socket < 0 || polls[1].revents == 0) continue;
    char buffer[4096];
    const ssize_t n = Receive(socket, buffer, sizeof buffer);
    if (n > 0 && answers_.Add({buffer, static_cast<size_t>(n)})) {
      TakeAnswers();
    } else if (n > 0) {
      ::shutdown(socket, SHUT_RDWR);  // no uploader speaks like this: the next turn finds the end
      answers_.Clear();
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      Lost();
      ended = true;
      const int64_t at = SystemClock().SteadyMicros();
      pause = at - started > kLivedWell ? kFirstPause : std::min(pause * 2, kLongestPause);
      start_at = at + pause;
    }
  }
}

void UploaderProcess::ForgetAfterFork() {
  socket_.Close();
  wake_.Close();
  for (UniqueFd& end : starting_) end.Close();
}

}  // namespace replica

#include "base/worker.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <utility>

namespace replica {

namespace {

// The threads that StartThread has started and that have come to run. Never destroyed; the child of a fork has none.
// Each is a node on its thread's own stack: a thread that must run takes no memory for it.
struct OwnThread {
  pid_t id;
  OwnThread* next;
};
struct OwnThreads {
  std::mutex mutex;
  OwnThread* first = nullptr;
};
std::atomic<OwnThreads*>& OwnPointer() {
  static std::atomic<OwnThreads*> threads{new OwnThreads};
  return threads;
}
OwnThreads* Own() {
  return OwnPointer().load();
}

bool IsOwn(pid_t id) {
  std::lock_guard<std::mutex> lock(Own()->mutex);
  for (const OwnThread* t = Own()->first; t != nullptr; t = t->next)
    if (t->id == id) return true;
  return false;
}

}  // namespace

bool OnlyOwnThreadsRemain() {
  // A thread that has ended and is waited for is a zombie, as main is after pthread_exit (proc(5), "stat").
  DIR* tasks = ::opendir("/proc/self/task");
  if (tasks == nullptr) return false;
  bool others = false;
  while (const dirent* task = ::readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    char path[64];
    char text[512] = "";
    (void)std::snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", task->d_name);
    if (FILE* stat = std::fopen(path, "re"); stat != nullptr) {
      const size_t n = std::fread(text, 1, sizeof text - 1, stat);
      text[n] = 0;
      std::fclose(stat);
      const char* name_end = std::strrchr(text, ')');
      const bool alive = name_end != nullptr && name_end[1] == ' ' && name_end[2] != 'Z' && name_end[2] != 'X';
      if (alive && !IsOwn(static_cast<pid_t>(std::strtol(task->d_name, nullptr, 10)))) others = true;
    }
  }
  ::closedir(tasks);
  return !others;
}

Result<std::thread> StartThread(const std::string& name, std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // What an instruction of the thread's own raises would end the process if it were blocked, past any handler.
  for (int own : {SIGBUS, SIGSEGV, SIGILL, SIGFPE}) sigdelset(&all, own);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  Status status;
  try {
    (void)Own();  // makes it
    thread = std::thread([body = std::move(body)] {
      // What libstdc++ keeps for a thread's exceptions, while there is memory: a library that came by dlopen has it
      // allocated at the first use.
      (void)std::uncaught_exceptions();
      OwnThread self = {static_cast<pid_t>(::syscall(SYS_gettid)), nullptr};
      {
        std::lock_guard<std::mutex> lock(Own()->mutex);
        self.next = std::exchange(Own()->first, &self);
      }
      try {
        body();
      } catch (...) {  // NOLINT(bugprone-empty-catch): no memory, most likely; the application must not die of it
      }
      std::lock_guard<std::mutex> lock(Own()->mutex);
      for (OwnThread** at = &Own()->first; *at != nullptr; at = &(*at)->next) {
        if (*at != &self) continue;
        *at = self.next;
        break;
      }
    });
    pthread_setname_np(thread.native_handle(), name.c_str());
  } catch (const std::exception& e) {
    status = Status(Code::kUnavailable,
                    "cannot start the thread " + name + ": " + e.what() + "; check the limits on processes and memory");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!status.ok()) return status;
  return thread;
}

void ForgetThreadsAfterFork() {
  OwnPointer().store(new OwnThreads);
}

Worker::~Worker() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
}

void Worker::Post(std::function<void()> task) {
  std::deque<std::function<void()>> here;
  {
    MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
    if (!thread_.joinable()) {
      auto thread = StartThread(name_, [this] { Run(); });
      if (thread.ok()) {
        thread_ = std::move(*thread);
      } else {
        here.swap(tasks_);
      }
    }
    changed_.notify_all();
  }
  for (const auto& waiting : here) waiting();
}

void Worker::Run() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) lock.Wait(changed_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    try {
      task();
    } catch (...) {  // NOLINT(bugprone-empty-catch): no memory; the next task may have some
    }
  }
}

}  // namespace replica

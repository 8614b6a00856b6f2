#include "base/worker.h"

#include <dirent.h>
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

namespace replica {

namespace {

std::atomic<int> own_threads{0};

}  // namespace

bool OnlyOwnThreadsRemain() {
  // A thread that has ended and is waited for is a zombie, as main is after pthread_exit (proc(5), "stat").
  DIR* tasks = ::opendir("/proc/self/task");
  if (tasks == nullptr) return false;
  int alive = 0;
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
      if (name_end != nullptr && name_end[1] == ' ' && name_end[2] != 'Z' && name_end[2] != 'X') alive++;
    }
  }
  ::closedir(tasks);
  return alive > 0 && alive <= own_threads.load();
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
  own_threads.fetch_add(1);
  try {
    thread = std::thread([body = std::move(body)] {
      body();
      own_threads.fetch_sub(1);
    });
    pthread_setname_np(thread.native_handle(), name.c_str());
  } catch (const std::exception& e) {
    own_threads.fetch_sub(1);
    status = Status(Code::kUnavailable,
                    "cannot start the thread " + name + ": " + e.what() + "; check the limits on processes and memory");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!status.ok()) return status;
  return thread;
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
    task();
  }
}

}  // namespace replica

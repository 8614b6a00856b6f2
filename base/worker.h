// One background thread that runs tasks in order. It starts with the first task and blocks signals (StartThread), so
// that an application's handlers run on the application's own threads. The destructor finishes the queue.
#ifndef LIBREPLICA_BASE_WORKER_H_
#define LIBREPLICA_BASE_WORKER_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "base/status.h"
#include "base/thread_annotations.h"

namespace replica {

// A std::thread that starts with all signals blocked but those that its own instructions raise, named `name` (15
// characters at most) for debuggers. kUnavailable when the system gives no thread (a limit on processes, no memory):
// nothing has happened then. What `body` throws ends the thread, and nothing else.
Result<std::thread> StartThread(const std::string& name, std::function<void()> body);
// True when no thread of the process goes on but those that StartThread has started: main has ended by pthread_exit,
// and so have all others.
bool OnlyOwnThreadsRemain();
// In the child of a fork, where none of them goes on.
void ForgetThreadsAfterFork();

class Worker {
 public:
  explicit Worker(std::string name) : name_(std::move(name)) {}
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // When no thread can be started the tasks run in the caller's. A task throws nothing.
  void Post(std::function<void()> task) EXCLUDES(mutex_);

 private:
  void Run() EXCLUDES(mutex_);

  const std::string name_;
  Mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace replica

#endif  // LIBREPLICA_BASE_WORKER_H_

// uploader=process: a process of its own that uploads for this one (`replica replicate --supervised`).
//
// A thread starts it, tells it over a socket pair which databases to upload, starts it again when it dies, and has it
// flush and end when the application does. It takes the leadership as any dedicated process does (ext/service.h), so
// while it does not run, or not yet, this process uploads by itself: its death loses and delays nothing.
//
// Lines of JSON go over the socket. To the uploader: {"flush_ms": n} first; {"attach": path, "url": …, "options": …},
// {"detach": path, "flush_ms": n}, {"ping": n}. From it: {"pid": n} first; {"detached": path}, {"failed": path,
// "error": …} (it tries again by itself), {"pong": n}. Paths and URLs are in hexadecimal. One that does not answer is
// killed.
//
// Credentials go over the socket, never into arguments or files. When this process dies the socket closes and the
// uploader flushes and ends by itself. Thread-safe.
#ifndef LIBREPLICA_EXT_UPLOADER_PROCESS_H_
#define LIBREPLICA_EXT_UPLOADER_PROCESS_H_

#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <set>
#include <string>

#include "base/fs.h"
#include "base/thread_annotations.h"
#include "config/settings.h"
#include "ext/uploader_answers.h"

namespace replica {

class UploaderProcess {
 public:
  // `command`: the program; empty: "replica" beside the library or its installation, else in PATH.
  // `flush_micros`: what it has for flushing when this process dies.
  UploaderProcess(const std::string& command, int64_t flush_micros);

  // Uploads a database (absolute path) from now on. Returns at once.
  void Add(const std::string& path, const std::string& url, const AttachOptions& options) EXCLUDES(mutex_);
  // Has it flush and let go of the database; returns when it has, or after `micros`. False when it ended before it had,
  // at once when it does not run.
  bool Remove(const std::string& path, int64_t micros) EXCLUDES(mutex_);

  // In the child after fork(): closes the inherited socket, which would keep the uploader alive after the parent.
  void ForgetAfterFork() NO_THREAD_SAFETY_ANALYSIS;

 private:
  void Run() EXCLUDES(mutex_);
  Status Spawn() EXCLUDES(mutex_);
  void Send(const std::string& line) REQUIRES(mutex_);
  // As recv without waiting.
  ssize_t Receive(int socket, char* buffer, size_t size);
  void TakeAnswers() EXCLUDES(mutex_);
  // Asks whether it is there; kills it when it has not answered for too long.
  void LookAfter(int64_t now) EXCLUDES(mutex_);
  void Lost() EXCLUDES(mutex_);
  void Wake() REQUIRES(mutex_);

  const std::string command_;
  const int64_t flush_micros_;
  Mutex mutex_;
  std::condition_variable changed_;
  bool running_ GUARDED_BY(mutex_) = false;                          // the thread exists
  std::map<std::string, std::string> databases_ GUARDED_BY(mutex_);  // path → the line that adds it
  std::set<std::string> leaving_ GUARDED_BY(mutex_);                 // asked to let go, not answered yet
  UniqueFd socket_ GUARDED_BY(mutex_);                               // not valid: it does not run
  UniqueFd starting_[2] GUARDED_BY(mutex_);                          // both ends, while it is being started
  UniqueFd wake_ GUARDED_BY(mutex_);                                 // eventfd that ends the thread's poll
  pid_t pid_ = 0;            // the thread's: of the uploader, once it has said anything
  int64_t ping_at_ = 0;      // the thread's: steady µs of the next question …
  int64_t asked_at_ = 0;     // … and of the one without an answer; 0: none
  UploaderAnswers answers_;  // the thread's
};

}  // namespace replica

#endif  // LIBREPLICA_EXT_UPLOADER_PROCESS_H_

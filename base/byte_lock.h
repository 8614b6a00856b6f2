// Locks on bytes of <database>-replica/lock among processes: open-file-description locks, which the kernel frees when
// the last descriptor of the description closes, hence when its process dies, and which threads of one process may hold
// against each other through descriptions of their own (fcntl(2)). Thread-safe.
#ifndef LIBREPLICA_BASE_BYTE_LOCK_H_
#define LIBREPLICA_BASE_BYTE_LOCK_H_

#include <string>
#include <utility>

#include "base/fs.h"
#include "base/status.h"

namespace replica {

// Which byte is what; docs/architecture.md tells who holds them for how long.
enum class LockByte {
  kLeader = 0,     // the leadership
  kGate = 1,       // the journal and the restart gate
  kCreation = 2,   // creation of the control block
  kUsers = 3,      // shared by every process with a connection to the database
  kRestore = 5,    // a restore to the database's path
  kChain = 6,      // the chain of WALs in the control block
  kDedicated = 4,  // a process whose work uploading is: it has, or waits for, the leadership; others yield to it
};

// "<folder>/lock"
std::string LockPath(const std::string& folder);

// Takes the lock if it is free; also turns one kind that this description holds into the other.
bool TryLock(int fd, LockByte byte);
// Waits for it. `path` is for the error.
Status Lock(int fd, LockByte byte, const std::string& path);
Status LockShared(int fd, LockByte byte, const std::string& path);
void Unlock(int fd, LockByte byte);
// All that this description has. A child that was forked meanwhile has the description too, so that closing the
// descriptor does not do it.
void UnlockAll(int fd);

// Of a lock file, for as long as a few lines need it: frees what was locked through it.
class LockFile {
 public:
  LockFile() = default;
  explicit LockFile(UniqueFd fd) : fd_(std::move(fd)) {}
  LockFile(LockFile&&) = default;
  LockFile& operator=(LockFile&& other) noexcept {
    if (fd_.get() >= 0) UnlockAll(fd_.get());
    fd_ = std::move(other.fd_);
    return *this;
  }
  ~LockFile() {
    if (fd_.get() >= 0) UnlockAll(fd_.get());
  }
  int get() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};
// True when another description holds it in any way.
bool IsLocked(int fd, LockByte byte);

}  // namespace replica

#endif  // LIBREPLICA_BASE_BYTE_LOCK_H_

#include "base/byte_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace replica {
namespace {

struct flock Describe(LockByte byte, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

Status Wait(int fd, LockByte byte, short type, const std::string& path) {
  struct flock lock = Describe(byte, type);
  while (::fcntl(fd, F_OFD_SETLKW, &lock) != 0)
    if (errno != EINTR) return ErrnoStatus(errno, "lock", path);
  return Ok();
}

}  // namespace

std::string LockPath(const std::string& folder) {
  return folder + "/lock";
}

bool TryLock(int fd, LockByte byte) {
  struct flock lock = Describe(byte, F_WRLCK);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

Status Lock(int fd, LockByte byte, const std::string& path) {
  return Wait(fd, byte, F_WRLCK, path);
}

Status LockShared(int fd, LockByte byte, const std::string& path) {
  return Wait(fd, byte, F_RDLCK, path);
}

void Unlock(int fd, LockByte byte) {
  struct flock lock = Describe(byte, F_UNLCK);
  (void)::fcntl(fd, F_OFD_SETLK, &lock);
}

void UnlockAll(int fd) {
  struct flock lock {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  (void)::fcntl(fd, F_OFD_SETLK, &lock);
}

bool IsLocked(int fd, LockByte byte) {
  struct flock lock = Describe(byte, F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace replica

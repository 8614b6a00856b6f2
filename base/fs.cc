#include "base/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace replica {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = other.Release();
  }
  return *this;
}

void UniqueFd::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<UniqueFd> OpenFile(const std::string& path, int flags) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  return UniqueFd(fd);
}

Result<UniqueFd> OpenOwnFile(const std::string& path, int flags) {
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(path, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(st.st_mode)) return Status(Code::kPermission, path + " is no regular file: remove it");
  return fd;
}

Status CheckDescriptors() {
  rlimit limit{};
  auto lowest = OpenFile("/dev/null", O_RDONLY);
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return Ok();
  if (lowest.ok() && static_cast<rlim_t>(lowest->get()) < limit.rlim_cur / 2) return Ok();
  return {Code::kUnavailable, "this process has more than half of the files open that it may (" +
                                  std::to_string(limit.rlim_cur) +
                                  "), and the rest is left to the application: raise the limit (ulimit -n)"};
}

Result<size_t> ReadAt(int fd, void* out, size_t size, uint64_t offset, const std::string& path) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = ::pread(fd, static_cast<char*>(out) + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read", path);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

Status WriteAt(int fd, const void* data, size_t size, uint64_t offset, const std::string& path) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = ::pwrite(fd, static_cast<const char*>(data) + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "write", path);
    done += static_cast<size_t>(n);
  }
  return Ok();
}

Status SyncFile(int fd, const std::string& path) {
  if (::fdatasync(fd) != 0) return ErrnoStatus(errno, "fdatasync", path);
  return Ok();
}

Status SyncFolder(const std::string& folder) {
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(folder, O_RDONLY | O_DIRECTORY));
  // Some file systems (FUSE, network) refuse fsync on a folder; there the rename is as durable as they make it.
  if (::fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOTSUP) return ErrnoStatus(errno, "fsync", folder);
  return Ok();
}

Result<uint64_t> FileSize(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  return static_cast<uint64_t>(st.st_size);
}

bool FileExists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

Result<std::string> ReadWhole(int fd, uint64_t limit, const std::string& path) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(st.st_mode)) {
    std::string data;
    char piece[65536];
    for (;;) {
      const ssize_t n = ::read(fd, piece, sizeof piece);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoStatus(errno, "read", path);
      if (n == 0) return data;
      data.append(piece, static_cast<size_t>(n));
      if (data.size() > limit)
        return Status(Code::kCorrupt, path + " is longer than " + std::to_string(limit) + " bytes");
    }
  }
  if (static_cast<uint64_t>(st.st_size) > limit)
    return Status(Code::kCorrupt, path + " is " + std::to_string(st.st_size) + " bytes long; at most " +
                                      std::to_string(limit) + " were expected");
  std::string data(static_cast<size_t>(st.st_size), '\0');
  REPLICA_ASSIGN(size_t n, ReadAt(fd, data.data(), data.size(), 0, path));
  data.resize(n);
  return data;
}

Result<std::string> ReadFile(const std::string& path, uint64_t limit) {
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  return ReadWhole(fd.get(), limit, path);
}

Status ReplaceFile(const std::string& path, std::string_view data, bool durable) {
  static std::atomic<unsigned> counter{0};
  std::string temporary = path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL));
  Status status = WriteAt(fd.get(), data.data(), data.size(), 0, temporary);
  if (status.ok() && durable) status = SyncFile(fd.get(), temporary);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = ErrnoStatus(errno, "rename to", path);
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  return durable ? SyncFolder(ParentFolder(path)) : Ok();
}

Status RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, "remove", path);
  return Ok();
}

Status MakeFolders(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0) return Ok();
  if (errno == EEXIST) {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) return Ok();
    return Status(Code::kExists, path + " is in the way: it is not a folder");
  }
  if (errno != ENOENT) return ErrnoStatus(errno, "create folder", path);
  std::string parent = ParentFolder(path);
  if (parent == path) return ErrnoStatus(ENOENT, "create folder", path);
  REPLICA_TRY(MakeFolders(parent));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "create folder", path);
  return Ok();
}

Status MakeOwnFolder(const std::string& path, const std::string& beside) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "create folder", path);
  struct stat st {};
  struct stat by {};
  if (::lstat(path.c_str(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  const bool known = ::stat(beside.c_str(), &by) == 0;
  struct stat around {};
  const bool lost = !known && ::stat(ParentFolder(beside).c_str(), &around) == 0;
  const uid_t owner = known ? by.st_uid : lost ? around.st_uid : ::geteuid();
  // Root may act as somebody else (base/as_owner.h).
  const auto acting = static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1)));
  std::string why;
  if (S_ISLNK(st.st_mode)) {
    why = "it is a link";
  } else if (!S_ISDIR(st.st_mode)) {
    why = "it is not a folder";
  } else if (st.st_uid != acting && st.st_uid != 0 && st.st_uid != owner) {
    why = "it belongs to user " + std::to_string(st.st_uid);
  } else if ((st.st_mode & S_IWOTH) != 0 && !(known && (by.st_mode & S_IWOTH) != 0)) {
    why = "everybody can write to it";
  } else if ((st.st_mode & S_IWGRP) != 0 && !(known && (by.st_mode & S_IWGRP) != 0 && st.st_gid == by.st_gid)) {
    why = "a group can write to it that cannot write to " + beside;
  }
  if (why.empty()) return Ok();
  return {Code::kPermission, path + " is not used: " + why +
                                 ". Remove it if nobody needs it, or correct its owner and mode (chown, chmod 700)"};
}

Result<std::vector<std::string>> ListFiles(const std::string& folder) {
  std::vector<std::string> names;
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) {
    if (errno == ENOENT) return names;
    return ErrnoStatus(errno, "list folder", folder);
  }
  std::string path;
  while (dirent* entry = ::readdir(dir)) {
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    bool regular = entry->d_type == DT_REG;
    if (entry->d_type == DT_UNKNOWN) {
      struct stat st {};
      path.assign(folder).append("/").append(name);
      regular = ::lstat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
    }
    if (regular) names.push_back(std::move(name));
  }
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

std::string ParentFolder(const std::string& path) {
  size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  if (slash == 0) return "/";
  return path.substr(0, slash);
}

std::string BaseName(const std::string& path) {
  size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace replica

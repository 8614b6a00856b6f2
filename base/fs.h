// Local files: owned descriptors, whole reads and writes, atomic replacement. Every error names the path.
//
// None of this may ever be used on a main database or -shm file that SQLite has open in this process: closing any
// descriptor of such a file drops the process's POSIX locks on it (https://sqlite.org/howtocorrupt.html, 2.2).
// Functions are thread-safe; a UniqueFd is used by one thread at a time.
#ifndef LIBREPLICA_BASE_FS_H_
#define LIBREPLICA_BASE_FS_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace replica {

// Owns a file descriptor; move-only.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Close(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() {
    int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void Close();

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC added; mode 0600 for a file it creates.
Result<UniqueFd> OpenFile(const std::string& path, int flags);
// The same for a file of a replica folder, which may belong to a user that we do not trust: kPermission when the name
// is a link, a pipe or the like.
Result<UniqueFd> OpenOwnFile(const std::string& path, int flags);

// kUnavailable when the process has more than half of the descriptors open that it may have: what is left is the
// application's, so that replication of one more database stops before the application's own opens fail.
Status CheckDescriptors();

// Reads up to `size` bytes at `offset`; the count is short only at the end of the file.
Result<size_t> ReadAt(int fd, void* out, size_t size, uint64_t offset, const std::string& path);
Status WriteAt(int fd, const void* data, size_t size, uint64_t offset, const std::string& path);
Status SyncFile(int fd, const std::string& path);  // fdatasync
Status SyncFolder(const std::string& folder);      // makes a rename or a new name in it durable

Result<uint64_t> FileSize(const std::string& path);
bool FileExists(const std::string& path);
// Reads a whole file; kCorrupt when it is larger than `limit` bytes.
// Of an open file, a pipe too, to its end.
Result<std::string> ReadWhole(int fd, uint64_t limit, const std::string& path);
Result<std::string> ReadFile(const std::string& path, uint64_t limit);
// Writes `data` beside `path`, then renames it over `path`. `durable` also fsyncs file and folder.
Status ReplaceFile(const std::string& path, std::string_view data, bool durable);
// Removes a file; one that is not there is no error.
Status RemoveFile(const std::string& path);
// Creates a folder and those above it, mode 0700 for each it creates.
Status MakeFolders(const std::string& path);
// A folder of ours beside the file `beside`: made when it is not there. kPermission when what is there is a link, when
// it belongs to somebody other than us, root or the owner of `beside` (of the folder around it, when the file is lost),
// or when somebody can write to it who cannot write to `beside`: whoever else can put names into it could have us
// write, or remove, files elsewhere.
Status MakeOwnFolder(const std::string& path, const std::string& beside);
// Names (not paths) of the regular files in a folder, sorted; empty when the folder is not there.
Result<std::vector<std::string>> ListFiles(const std::string& folder);

std::string ParentFolder(const std::string& path);  // "." for a bare name
std::string BaseName(const std::string& path);

}  // namespace replica

#endif  // LIBREPLICA_BASE_FS_H_

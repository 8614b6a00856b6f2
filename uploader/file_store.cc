#include "uploader/file_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <new>

#include "base/bytes.h"
#include "base/fs.h"
#include "base/sha256.h"

namespace replica {
namespace {

constexpr char kTemporary[] = ".tmp-";  // no key has a part that starts with a dot

// A crash leaves a temporary file behind; it is never listed as an object.
bool IsTemporary(const std::string& name) {
  return name.rfind(kTemporary, 0) == 0;
}

constexpr int kDeepest = 8;  // folders in one another; a key has three parts

// Adds what is below <root>/<base> to the listing, if `keep` says so of its key. Links to folders are not followed.
// (Not by std::filesystem: libstdc++'s iterators end the process when there is no memory.)
template <typename Keep>
Status Walk(const std::string& root, const std::string& base, bool folders_only, int depth, const Keep& keep,
            Listing* listing) {
  const std::string path = root + "/" + base;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), ::closedir);
  if (folder == nullptr && errno == ENOENT) return Ok();
  if (folder == nullptr) return ErrnoStatus(errno, "list folder", path);
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(folder.get());
    if (entry == nullptr) return errno == 0 ? Ok() : ErrnoStatus(errno, "list folder", path);
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || IsTemporary(name)) continue;
    struct stat st {};
    if (::fstatat(::dirfd(folder.get()), entry->d_name, &st, 0) != 0) continue;  // it vanished
    const std::string key = base + name;
    if (folders_only) {
      if (S_ISDIR(st.st_mode) && keep(key + "/")) listing->folders.push_back(key + "/");
    } else if (S_ISREG(st.st_mode)) {
      if (keep(key)) listing->objects.push_back({key, static_cast<uint64_t>(st.st_size)});
    } else if (S_ISDIR(st.st_mode) && depth > 0) {
      struct stat link {};
      if (::fstatat(::dirfd(folder.get()), entry->d_name, &link, AT_SYMLINK_NOFOLLOW) != 0 || S_ISLNK(link.st_mode))
        continue;
      REPLICA_TRY(Walk(root, key + "/", false, depth - 1, keep, listing));
    }
  }
}

// What is stored is what was encoded: S3 compares the digest with what it received, and so does this.
Status WriteBody(int fd, const ObjectBody& body, const std::string& path) {
  if (body.path.empty()) return WriteAt(fd, body.bytes.data(), body.bytes.size(), 0, path);
  Sha256 sha;
  REPLICA_ASSIGN(UniqueFd in, OpenOwnFile(body.path, O_RDONLY));
  std::string piece(1 << 20, '\0');
  for (uint64_t at = 0; at < body.size;) {
    size_t want = static_cast<size_t>(std::min<uint64_t>(piece.size(), body.size - at));
    REPLICA_ASSIGN(size_t n, ReadAt(in.get(), piece.data(), want, at, body.path));
    if (n != want) return {Code::kIo, body.path + " became shorter while it was uploaded"};
    REPLICA_TRY(WriteAt(fd, piece.data(), n, at, path));
    sha.Update({piece.data(), n});
    at += n;
  }
  const Sha256::Digest digest = sha.Finish();
  if (HexEncode(digest.data(), digest.size()) != body.sha256)
    return {Code::kCorrupt, body.path + " is not what was written there"};
  return Ok();
}

}  // namespace

FileStore::FileStore(std::string folder, std::shared_ptr<Worker> worker, std::shared_ptr<Endpoint> endpoint)
    : Store(std::move(endpoint)), folder_(std::move(folder)), url_("file://" + folder_), worker_(std::move(worker)) {}

void FileStore::PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) {
  worker_->Post([root = folder_, path = folder_ + "/" + key, body = std::move(body), if_absent, durable = durable_,
                 endpoint = endpoint(), done = std::move(done)] {
    Status status;
    const int64_t begun = SystemClock().SteadyMicros();
    try {
      status = PutFile(root, path, body, if_absent, durable.get());
    } catch (const std::exception&) {
      status = Status(Code::kUnavailable, "out of memory");  // most likely; short enough to need none
    }
    Report(endpoint.get(), begun, status);
    done(status);
  });
}

void FileStore::Report(Endpoint* endpoint, int64_t begun, const Status& status) {
  if (status.code() == Code::kIo || status.code() == Code::kFull || status.code() == Code::kUnavailable) {
    endpoint->Failed(begun, 0, status.message());
  } else {
    endpoint->Answered();
  }
}

// Also of folders that are there already: whoever made them may have been killed, or lost power, before its fsync.
Status FileStore::MakeDurable(const std::string& root, const std::string& folder, Durable* durable) {
  for (std::string at = folder;; at = ParentFolder(at)) {
    {
      MutexLock lock(durable->mutex);
      if (durable->folders.count(at) != 0) return Ok();
    }
    // Above the URL's own folder too, as far as we may: what we have made we may read.
    Status status = SyncFolder(ParentFolder(at));
    if (status.code() == Code::kPermission && at.size() < root.size()) return Ok();
    REPLICA_TRY(std::move(status));
    MutexLock lock(durable->mutex);
    durable->folders.insert(at);
    if (ParentFolder(at) == "/" || ParentFolder(at) == at) return Ok();
  }
}

Status FileStore::PutFile(const std::string& root, const std::string& path, const ObjectBody& body, bool if_absent,
                          Durable* durable) {
  static std::atomic<unsigned> counter{0};
  const std::string folder = ParentFolder(path);
  REPLICA_TRY(MakeFolders(folder));
  REPLICA_TRY(MakeDurable(root, folder, durable));
  if (if_absent && FileExists(path)) {
    // It may be our own, of a try that was killed before its last fsync, and is about to be acknowledged.
    REPLICA_TRY(SyncFolder(folder));
    return {Code::kExists, path + " exists already"};
  }
  const std::string temporary =
      folder + "/" + kTemporary + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
  REPLICA_TRY(RemoveFile(temporary));
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL));
  Status status = WriteBody(fd.get(), body, temporary);
  if (status.ok()) status = SyncFile(fd.get(), temporary);
  if (status.ok() && if_absent) {
    if (::link(temporary.c_str(), path.c_str()) != 0)
      status = errno == EEXIST ? Status(Code::kExists, path + " exists already") : ErrnoStatus(errno, "link to", path);
    ::unlink(temporary.c_str());
  } else if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename to", path);
  }
  if (!status.ok() && status.code() != Code::kExists) {
    ::unlink(temporary.c_str());
    return status;
  }
  REPLICA_TRY(SyncFolder(folder));
  return status;
}

Result<std::string> FileStore::Get(const std::string& key, uint64_t offset, uint64_t size) {
  const std::string path = folder_ + "/" + key;
  // A pipe in the place of an object must not hold a reader up.
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(st.st_mode)) return Status(Code::kCorrupt, path + " is not a regular file");
  const auto length = static_cast<uint64_t>(st.st_size);
  if (offset >= length) return std::string();
  std::string out(static_cast<size_t>(std::min(size, length - offset)), '\0');
  REPLICA_ASSIGN(size_t n, ReadAt(fd.get(), out.data(), out.size(), offset, path));
  out.resize(n);
  return out;
}

Result<uint64_t> FileStore::Size(const std::string& key) {
  return FileSize(folder_ + "/" + key);
}

Result<Listing> FileStore::List(const std::string& prefix, const std::string& start_after, bool folders_only) {
  Listing listing;
  // The folder part of the prefix is walked; what follows the last '/' filters names.
  const size_t slash = prefix.find_last_of('/');
  const std::string base = slash == std::string::npos ? "" : prefix.substr(0, slash + 1);
  auto keep = [&](const std::string& key) { return key.rfind(prefix, 0) == 0 && key > start_after; };
  const int64_t begun = SystemClock().SteadyMicros();
  Status status = Walk(folder_, base, folders_only, kDeepest, keep, &listing);
  Report(endpoint().get(), begun, status);
  REPLICA_TRY(std::move(status));
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.objects.begin(), listing.objects.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return listing;
}

Status FileStore::Delete(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) REPLICA_TRY(RemoveFile(folder_ + "/" + key));
  return Ok();
}

}  // namespace replica

#include "vfs/known_vfs.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace replica {
namespace {

// https://sqlite.org/vfs.html, "Multiple VFSes": those of os_unix.c. unix-none and unix-dotfile have no WAL of their
// own, which SQLite itself says.
constexpr const char* kSqlitesOwn[] = {"unix", "unix-excl", "unix-dotfile", "unix-none", "unix-namedsem"};

std::vector<std::string>& Allowed() {
  static auto* names = new std::vector<std::string>;  // written once, before any VFS is looked at
  return *names;
}

// sqlite3PagerOpen allocates the pager and the object of its file in one block, and keeps a pointer to that object: the
// pointer lies at the same distance before every pager's file. In front of a file that a wrapping VFS has made room for
// within its own, another word lies there. 0: not known.
std::atomic<uintptr_t> pager_distance{0};
constexpr uintptr_t kFarthest = 4096;

bool IsMapped(const char* address) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  unsigned char resident = 0;
  const char* begin = address - (reinterpret_cast<uintptr_t>(address) & (page - 1));
  return ::mincore(const_cast<char*>(begin), 1, &resident) == 0;
}

// Reads in front of an object that we were handed: of another allocation than ours, as a sanitizer sees it.
// (The attribute in the spelling that gcc and clang share.)
__attribute__((no_sanitize("address", "undefined", "thread"), noinline)) uintptr_t WordAt(const char* address) {
  return *reinterpret_cast<const volatile uintptr_t*>(address);
}

}  // namespace

void AllowVfses(std::vector<std::string> names) {
  Allowed() = std::move(names);
}

bool SameLibrary(const void* one, const void* other) {
  Dl_info first{};
  Dl_info second{};
  return ::dladdr(one, &first) != 0 && ::dladdr(other, &second) != 0 && first.dli_fbase == second.dli_fbase;
}

bool IsSqlitesOwnVfs(const sqlite3_vfs* vfs, int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*)) {
  return std::any_of(std::begin(kSqlitesOwn), std::end(kSqlitesOwn),
                     [&](const char* name) { return sqlite3_stricmp(vfs->zName, name) == 0; }) &&
         SameLibrary(reinterpret_cast<const void*>(open), reinterpret_cast<const void*>(sqlite3_api->libversion));
}

bool IsKnownVfs(const sqlite3_vfs* vfs, int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*)) {
  return IsSqlitesOwnVfs(vfs, open) || std::find(Allowed().begin(), Allowed().end(), vfs->zName) != Allowed().end();
}

bool LearnPagerLayout(sqlite3* db) {
  if (pager_distance.load(std::memory_order_acquire) != 0) return true;
  // Also of a database in memory: the object is there, without methods.
  sqlite3_file* f = nullptr;
  if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f) != SQLITE_OK || f == nullptr) return false;
  const auto* object = reinterpret_cast<const char*>(f);
  const auto address = reinterpret_cast<uintptr_t>(f);
  for (uintptr_t distance = sizeof(void*); distance <= kFarthest; distance += sizeof(void*)) {
    if (((address - distance) & (kFarthest - 1)) > kFarthest - 1 - sizeof(void*) && !IsMapped(object - distance))
      return false;
    if (WordAt(object - distance) != address) continue;
    pager_distance.store(distance, std::memory_order_release);
    return true;
  }
  return false;
}

bool IsPagersFile(const sqlite3_file* f) {
  const uintptr_t distance = pager_distance.load(std::memory_order_acquire);
  if (distance == 0) return false;
  const auto address = reinterpret_cast<uintptr_t>(f);
  const char* place = reinterpret_cast<const char*>(f) - distance;
  // Whoever calls xOpen with memory of his own may have nothing in front of it.
  if ((address - distance) / kFarthest != address / kFarthest && !IsMapped(place)) return false;
  return WordAt(place) == address;
}

std::string UnsupportedHost(sqlite3* db) {
  if (sqlite3_compileoption_used("HAS_CODEC") != 0)
    return "this SQLite encrypts pages (SQLCipher): libreplica would see nothing but cipher text";
  sqlite3_vfs* vfs = nullptr;
  if (sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK || vfs == nullptr)
    vfs = sqlite3_vfs_find(nullptr);
  if (vfs == nullptr) return "this SQLite has no VFS";
  if (!LearnPagerLayout(db)) return "this SQLite keeps its files in a way that libreplica does not know";
  return "";
}

}  // namespace replica

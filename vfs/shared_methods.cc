#include "vfs/shared_methods.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <vector>

namespace replica {
namespace {

struct HookedTable {
  // Stored last: a reader that finds the table finds its method.
  std::atomic<const sqlite3_io_methods*> table{nullptr};
  ShmLockMethod original = nullptr;
};
std::array<HookedTable, 8> hooked_tables;  // one a kind of locking a VFS knows; there are two or three
std::atomic<ShmLockMethod> the_hook{nullptr};

const HookedTable* FindTable(const sqlite3_io_methods* table) {
  for (const HookedTable& h : hooked_tables) {
    const sqlite3_io_methods* known = h.table.load(std::memory_order_acquire);
    if (known == table) return &h;
    if (known == nullptr) break;
  }
  return nullptr;
}

struct Mapping {
  int protection = 0;
  std::string file;
};

// The line of /proc/self/maps (proc(5)) that an address lies in.
Result<Mapping> MappingOf(const volatile void* address) {
  FILE* maps = std::fopen("/proc/self/maps", "re");
  if (maps == nullptr) return ErrnoStatus(errno, "open", "/proc/self/maps");
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  Result<Mapping> found = Status(Code::kNotFound, "the address is not mapped");
  char* line = nullptr;
  size_t room = 0;
  while (::getline(&line, &room, maps) > 0) {
    uintptr_t first = 0;
    uintptr_t end = 0;
    char flags[5] = {};
    int name = 0;
    if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %n", &first, &end, flags, &name) < 3 ||
        wanted < first || wanted >= end)
      continue;
    Mapping mapping;
    mapping.protection =
        (flags[0] == 'r' ? PROT_READ : 0) | (flags[1] == 'w' ? PROT_WRITE : 0) | (flags[2] == 'x' ? PROT_EXEC : 0);
    mapping.file = line + name;
    if (!mapping.file.empty() && mapping.file.back() == '\n') mapping.file.pop_back();
    found = std::move(mapping);
    break;
  }
  std::free(line);
  std::fclose(maps);
  return found;
}

Status StoreReadOnly(ShmLockMethod* slot, ShmLockMethod value) {
  REPLICA_ASSIGN(Mapping mapping, MappingOf(slot));
  const auto size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  void* page = reinterpret_cast<char*>(slot) - (reinterpret_cast<uintptr_t>(slot) & (size - 1));
  const bool writable = (mapping.protection & PROT_WRITE) != 0;
  // Code on the same page must stay executable meanwhile, and memory that is both is refused on hardened systems.
  if (!writable && (mapping.protection & PROT_EXEC) != 0)
    return {Code::kUnsupported, "SQLite's method table lies in executable memory"};
  // A pointer does not cross a page.
  if (!writable && ::mprotect(page, size, PROT_READ | PROT_WRITE) != 0)
    return ErrnoStatus(errno, "make writable", "SQLite's method table");
  __atomic_store_n(slot, value, __ATOMIC_RELEASE);
  if (!writable) (void)::mprotect(page, size, mapping.protection);
  return Ok();
}

// The table of the VFS's main database files. /dev/null serves as such a file: opening it creates nothing and takes no
// lock.
const sqlite3_io_methods* TableOf(sqlite3_vfs* vfs) {
  std::vector<void*> memory(static_cast<size_t>(vfs->szOsFile) / sizeof(void*) + 1);
  auto* file = reinterpret_cast<sqlite3_file*>(memory.data());
  sqlite3_filename name = sqlite3_create_filename("/dev/null", "", "", 0, nullptr);
  if (name == nullptr) return nullptr;
  const sqlite3_io_methods* table = nullptr;
  int flags = 0;
  const int rc = vfs->xOpen(vfs, name, file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READONLY, &flags);
  if (file->pMethods != nullptr) {
    if (rc == SQLITE_OK) table = file->pMethods;
    file->pMethods->xClose(file);
  }
  sqlite3_free_filename(name);
  return table;
}

}  // namespace

Status HookSharedShmLock(sqlite3_vfs* vfs, ShmLockMethod hook) {
  auto* table = const_cast<sqlite3_io_methods*>(TableOf(vfs));
  if (table == nullptr || table->iVersion < 2 || table->xShmLock == nullptr || table->xShmLock == hook) return Ok();
  for (HookedTable& h : hooked_tables) {
    if (h.table.load(std::memory_order_relaxed) != nullptr) continue;
    h.original = table->xShmLock;
    the_hook.store(hook, std::memory_order_release);
    h.table.store(table, std::memory_order_release);
    Status status = StoreReadOnly(&table->xShmLock, hook);
    if (!status.ok()) h.table.store(nullptr, std::memory_order_release);
    return status;
  }
  return {Code::kUnsupported, "too many kinds of database files"};
}

ShmLockMethod OriginalShmLock(const sqlite3_io_methods* table) {
  if (const HookedTable* h = FindTable(table); h != nullptr) return h->original;
  // A table that was copied from a hooked one: the files of one VFS have one xShmLock, however they lock otherwise.
  if (table->xShmLock == the_hook.load(std::memory_order_acquire)) return hooked_tables[0].original;
  return table->xShmLock;
}

bool IsHookedTable(const sqlite3_io_methods* table) {
  return FindTable(table) != nullptr;
}

std::string DatabaseOfIndex(const volatile void* region0) {
  static constexpr std::string_view kSuffix = "-shm";
  auto mapping = MappingOf(region0);
  if (!mapping.ok() || mapping->file.size() <= kSuffix.size() ||
      mapping->file.compare(mapping->file.size() - kSuffix.size(), kSuffix.size(), kSuffix) != 0)
    return "";
  // The kernel writes a newline in a name as \012; nothing else is escaped.
  std::string path = mapping->file.substr(0, mapping->file.size() - kSuffix.size());
  for (size_t at; (at = path.find("\\012")) != std::string::npos;) path.replace(at, 4, "\n");
  return path;
}

}  // namespace replica

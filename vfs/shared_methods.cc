#include "vfs/shared_methods.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "vfs/known_vfs.h"

namespace replica {
namespace {

struct HookedTable {
  // Stored last: a reader that finds the table finds its method.
  std::atomic<const sqlite3_io_methods*> table{nullptr};
  ShmLockMethod original = nullptr;
};
constexpr size_t kTables = 4;  // kinds of locking that a VFS knows
std::array<HookedTable, kTables> hooked_tables;
std::atomic<LateShmLockMethod> late_shm_lock{nullptr};

// One function for each table: a call knows its original without looking at the file, which may have any table in front
// that calls through.
template <size_t kTable>
int Trampoline(sqlite3_file* f, int offset, int n, int flags) {
  const HookedTable& hooked = hooked_tables[kTable];
  if (f->pMethods != hooked.table.load(std::memory_order_acquire)) return hooked.original(f, offset, n, flags);
  return late_shm_lock.load(std::memory_order_acquire)(f, offset, n, flags, hooked.original);
}
constexpr std::array<ShmLockMethod, kTables> kTrampolines = {Trampoline<0>, Trampoline<1>, Trampoline<2>,
                                                             Trampoline<3>};

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

// The constant table of the VFS's main database files; null when it has none. /dev/null serves as such a file: opening
// it creates nothing and takes no lock.
const sqlite3_io_methods* TableOf(sqlite3_vfs* vfs) {
  std::vector<void*> memory(static_cast<size_t>(vfs->szOsFile) / sizeof(void*) + 1);
  auto* file = reinterpret_cast<sqlite3_file*>(memory.data());
  sqlite3_filename name = sqlite3_create_filename("/dev/null", "", "", 0, nullptr);
  if (name == nullptr) throw std::bad_alloc();  // not "none": the caller tries again
  const sqlite3_io_methods* table = nullptr;
  int flags = 0;
  const int rc = vfs->xOpen(vfs, name, file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READONLY, &flags);
  if (file->pMethods != nullptr) {
    if (rc == SQLITE_OK && SameLibrary(file->pMethods, reinterpret_cast<const void*>(vfs->xOpen)) &&
        file->pMethods->iVersion >= 2 && file->pMethods->xShmLock != nullptr)
      table = file->pMethods;
    file->pMethods->xClose(file);
  }
  sqlite3_free_filename(name);
  return table;
}

}  // namespace

Status HookSharedShmLock(sqlite3_vfs* vfs, LateShmLockMethod hook) {
  // Where /proc is not there the table cannot be found to be writable.
  REPLICA_TRY(MappingOf(reinterpret_cast<const void*>(sqlite3_api->libversion)).status());
  auto* table = const_cast<sqlite3_io_methods*>(TableOf(vfs));
  if (table == nullptr) return Ok();
  for (size_t i = 0; i < kTables; i++) {
    HookedTable& h = hooked_tables[i];
    const sqlite3_io_methods* known = h.table.load(std::memory_order_relaxed);
    if (known == table) return Ok();
    if (known != nullptr) continue;
    late_shm_lock.store(hook, std::memory_order_release);
    h.original = table->xShmLock;
    h.table.store(table, std::memory_order_release);
    Status status = StoreReadOnly(&table->xShmLock, kTrampolines[i]);
    if (!status.ok()) h.table.store(nullptr, std::memory_order_release);
    return status;
  }
  return {Code::kUnsupported, "too many kinds of database files"};
}

ShmLockMethod OriginalShmLock(const sqlite3_io_methods* table) {
  for (size_t i = 0; i < kTables; i++)
    if (table->xShmLock == kTrampolines[i]) return hooked_tables[i].original;
  return table->xShmLock;
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

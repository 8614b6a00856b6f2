#include "vfs/shim.h"

#include <dirent.h>
#include <fcntl.h>
#include <strings.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "vfs/known_vfs.h"
#include "vfs/shared_methods.h"

namespace replica {
namespace {

using OpenMethod = int (*)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*);

// Each thread's variables are few and in the static block (initial-exec): otherwise glibc allocates them at a thread's
// first use, and ends the process when it cannot.
[[gnu::tls_model("initial-exec")]] thread_local int own_connections = 0;
// Held shared while a thread of libreplica's is inside SQLite; a fork takes it alone, so that the child does not
// inherit SQLite's mutexes locked by a thread that it does not have. Never destroyed; the child begins with a new one.
std::shared_mutex*& InsideSqlite() {
  static auto* mutex = new std::shared_mutex;
  return mutex;
}
// The method table of a VFS is looked up: its file is nobody's.
[[gnu::tls_model("initial-exec")]] thread_local bool probing = false;

struct AdoptedFile {
  sqlite3_io_methods methods;                 // first member: sqlite3_file::pMethods points at it
  const sqlite3_io_methods* lower = nullptr;  // what was there before
  ShmLockMethod lower_shm_lock = nullptr;     // its xShmLock, as it was before the hook for late adoption
  sqlite3_file* file = nullptr;
  std::string path;
  std::string vfs;             // the name of the VFS that opened it; empty: not known
  FileId id;                   // which file it is; its path may name another one by now
  const char* name = nullptr;  // SQLite's filename; lives as long as the file is open
  bool own = false;            // libreplica's own connection
  bool read_only = false;      // nothing can be committed through it: it starts nothing
  // The database, once it is bound: changed under the registry's mutex, and kept until the file is closed (a thread may
  // be inside the tap when it is detached or, its replica folder removed, replaced). `bound` is what the application's
  // thread reads; null while detached.
  std::shared_ptr<Database> database;
  std::vector<std::shared_ptr<Database>> earlier;
  std::atomic<Database*> bound{nullptr};
  // Used by the thread that uses the connection (SQLite serialises these).
  const volatile void* region0 = nullptr;  // of the wal-index, once it is mapped
  bool wal_seen = false;
  bool user = false;                // AddUser was called for `database`, and RemoveUser not yet
  bool exclusive_checked = false;   // CheckExclusive has looked
  bool asked_exclusive = false;     // since its last transaction it has tried to lock the whole file
  bool checkpoints = false;         // it has the lock for checkpoints
  bool used_wal = false;            // it has had the wal-index mapped
  int level = SQLITE_LOCK_NONE;     // of the file's own lock
  bool closing = false;             // the whole file is locked for the last close
  std::atomic<bool> judged{false};  // since it is a user, it has had a read lock
  std::atomic<bool> mapped{false};  // region0 is set
  int read_mark = -1;
  // That the connection has set (Database::SetCloseMode), since it was adopted: a PRAGMA before that was not seen.
  int64_t journal_size_limit = Database::kDefaultLimit;

  // The database, when what is committed through this file is a commit of it: not when the path names another file now.
  Database* captured() const {
    Database* d = bound.load(std::memory_order_acquire);
    return d != nullptr && (own || d->Captures(id)) ? d : nullptr;
  }
};

// C at the edge: nothing that is thrown crosses SQLite's frames. What could not be done is not replicated, and said so
// where no memory is needed to say it; the application goes on.
template <typename Body>
auto AtEdge(const char* what, decltype(std::declval<Body>()()) otherwise, const Body& body) noexcept {
  try {
    return body();
  } catch (const std::exception& e) {
    sqlite3_log(SQLITE_NOMEM, "libreplica: cannot %s: %s", what, e.what());
    return otherwise;
  }
}

// All adopted files of the application's, and the VFSes that are hooked. One mutex, never taken on the commit path.
struct Registry {
  std::mutex mutex;
  std::mutex installing;  // taken before `mutex`
  std::vector<AdoptedFile*> files;
  // In a child after fork(): files of libreplica's own connections, which belong to threads of the parent's.
  std::vector<AdoptedFile*> orphans;
  // A VFS that is hooked. It may be unregistered and freed at any time, so nothing of it is read through the pointer.
  struct Hooked {
    OpenMethod open;  // its xOpen, as it was
    void* data;       // its pAppData, then
  };
  std::unordered_map<sqlite3_vfs*, Hooked> lower_open;
  ShimHooks hooks;
};

Registry*& RegistryPointer() {
  static auto* registry = new Registry;  // never destroyed: files may outlive static destructors
  return registry;
}
Registry& Files() {
  return *RegistryPointer();
}

int FileClose(sqlite3_file* f);
void LeaveIndex(AdoptedFile* a) noexcept;
int FileShmMap(sqlite3_file* f, int region, int size, int extend, void volatile** out);

// Someone else may have put a table in front of ours and call us with f->pMethods pointing at theirs: then search.
[[gnu::noinline]] AdoptedFile* Search(sqlite3_file* f) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  for (AdoptedFile* a : r.files)
    if (a->file == f) return a;
  return nullptr;
}

inline AdoptedFile* Find(sqlite3_file* f) {
  const auto* methods = f->pMethods;
  if (methods->xClose == FileClose) [[likely]]
    return reinterpret_cast<AdoptedFile*>(const_cast<sqlite3_io_methods*>(methods));
  return Search(f);
}

// Under the registry's mutex. Only who has the wal-index mapped keeps it alive: a connection that is open and was never
// used must not count, or nobody would notice that the index is another one.
void BecomeUser(AdoptedFile* a) {
  if (a->user || !a->mapped.load()) return;
  a->database->AddUser();
  a->user = true;
  a->judged.store(false, std::memory_order_relaxed);
}

// Called in the application's thread when its connection maps the wal-index: from here on the database is in WAL mode.
// An SQLite error when the database may not be used without a replica.
int SeeWal(AdoptedFile* a) noexcept {
  a->wal_seen = true;
  if (a->own || a->read_only || a->path.empty()) return SQLITE_OK;
  if (a->bound.load(std::memory_order_acquire) != nullptr)
    return AtEdge("use a database", SQLITE_OK, [a] {
      // Bound before, or in WAL mode once more.
      std::lock_guard<std::mutex> lock(Files().mutex);
      BecomeUser(a);
      return SQLITE_OK;
    });
  a->wal_seen = false;
  return AtEdge("replicate a database", SQLITE_OK, [a] {
    Registry& r = Files();
    std::shared_ptr<Database> database;
    if (r.hooks.wal_opened) database = r.hooks.wal_opened(a->path, a->name);
    if (database != nullptr) BindFiles(database);
    a->wal_seen = true;
    return database == nullptr && r.hooks.refused && r.hooks.refused(a->path) ? SQLITE_CANTOPEN : SQLITE_OK;
  });
}

// Whether the header of the database file says that it is in WAL mode (https://sqlite.org/fileformat2.html 1.3.3).
// An SQLite error when it cannot be read.
int ReadWalMode(AdoptedFile* a, bool* wal) {
  unsigned char version[2] = {0, 0};
  constexpr int kVersionOffset = 18;
  const int rc = a->lower->xRead(a->file, version, sizeof version, kVersionOffset);
  *wal = rc == SQLITE_OK && version[1] == 2;
  return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
}

// The database is to be replicated, as far as the configuration says.
bool IsWanted(AdoptedFile* a) {
  if (a->own || a->path.empty()) return false;
  if (a->bound.load(std::memory_order_acquire) != nullptr) return true;
  Registry& r = Files();
  return r.hooks.wanted && r.hooks.wanted(a->path, a->name);
}

// --- the methods that look; every other one is the lower file's own, called without a detour

int FileClose(sqlite3_file* f) {
  AdoptedFile* a = Find(f);
  std::shared_ptr<Database> database;
  bool last = false;
  LeaveIndex(a);
  {
    Registry& r = Files();
    std::lock_guard<std::mutex> lock(r.mutex);
    r.files.erase(std::remove(r.files.begin(), r.files.end(), a), r.files.end());
    database = std::move(a->database);
    if (database != nullptr && !a->own) {
      last = std::none_of(r.files.begin(), r.files.end(),
                          [&](AdoptedFile* o) { return !o->own && o->database == database && o->id == a->id; });
    }
  }
  if (database != nullptr && a->used_wal && !a->own) {
    // How the application wants the files to be left. Its own close could not do it: ours comes after it.
    int persist = -1;
    const int asked = a->lower->xFileControl(f, SQLITE_FCNTL_PERSIST_WAL, &persist);
    database->SetCloseMode(asked == SQLITE_OK && persist == 1, !a->asked_exclusive, a->journal_size_limit);
  }
  f->pMethods = a->lower;
  const int rc = f->pMethods->xClose(f);
  delete a;
  AtEdge("close a database", false, [&] {
    // After the lower close: libreplica's own connection must be the one that closes last.
    if (last && Files().hooks.last_close) Files().hooks.last_close(database);
    return true;
  });
  return rc;
}

// A connection that locks the whole file of a database in WAL mode and has no wal-index keeps one in its own memory:
// nobody can see its commits. It is in EXCLUSIVE mode by default (SQLITE_DEFAULT_LOCKING_MODE), or since a pragma that
// named another schema.
int CheckExclusive(AdoptedFile* a) {
  return AtEdge("check a lock", SQLITE_OK, [a] {
    if (!IsWanted(a)) return SQLITE_OK;
    bool wal = false;
    if (const int rc = ReadWalMode(a, &wal); rc != SQLITE_OK || !wal) return rc;
    a->exclusive_checked = true;
    const char* why =
        "the connection is in EXCLUSIVE locking mode, in which commits cannot be seen: run PRAGMA locking_mode=NORMAL "
        "before the first transaction";
    sqlite3_log(SQLITE_WARNING, "libreplica: %s is not replicated: %s", a->path.c_str(), why);
    Registry& r = Files();
    return r.hooks.not_replicated && r.hooks.not_replicated(a->path, why) ? SQLITE_PERM : SQLITE_OK;
  });
}

int FileLock(sqlite3_file* f, int level) {
  AdoptedFile* a = Find(f);
  if (level == SQLITE_LOCK_EXCLUSIVE) {
    a->asked_exclusive = true;
    // Who commits to a rollback journal has RESERVED before: no commit reads the header here.
    if (a->region0 == nullptr && !a->exclusive_checked && a->level < SQLITE_LOCK_RESERVED)
      if (const int refused = CheckExclusive(a); refused != SQLITE_OK) return refused;
  }
  const int rc = a->lower->xLock(f, level);
  if (rc == SQLITE_OK) a->level = level;
  // Closing the last connection (or leaving WAL mode): the WAL is checkpointed and deleted next.
  if (rc == SQLITE_OK && level == SQLITE_LOCK_EXCLUSIVE && a->region0 != nullptr) {
    Database* database = a->captured();
    if (database != nullptr) database->PassGate(a->region0, Database::RestartBy::kClose);
    a->closing = true;
  }
  return rc;
}

int FileUnlock(sqlite3_file* f, int level) {
  AdoptedFile* a = Find(f);
  a->closing = false;
  a->level = level;
  return a->lower->xUnlock(f, level);
}

int RefusePragma(char** arguments, const std::string& path, const char* why) {
  arguments[0] = sqlite3_mprintf(
      "libreplica: %s is replicated, so %s; to change it, end replication first: SELECT "
      "replica_detach(), or the setting that names its replica",
      path.c_str(), why);
  return arguments[0] != nullptr ? SQLITE_ERROR : SQLITE_NOMEM;
}

int FilePragma(AdoptedFile* a, char** arguments) {
  const char* pragma = arguments[1];
  const char* value = arguments[2];
  if (value == nullptr) return SQLITE_NOTFOUND;
  if (strcasecmp(pragma, "journal_size_limit") == 0)
    a->journal_size_limit = std::max(std::strtoll(value, nullptr, 10), -1LL);
  const bool mode = strcasecmp(pragma, "journal_mode") == 0 && strcasecmp(value, "wal") != 0;
  const bool locking = strcasecmp(pragma, "locking_mode") == 0 && strcasecmp(value, "exclusive") == 0;
  // Locked as a whole before it is in WAL mode, it never has a wal-index that others could see.
  const bool locked =
      strcasecmp(pragma, "journal_mode") == 0 && !mode && a->level == SQLITE_LOCK_EXCLUSIVE && a->region0 == nullptr;
  if ((!mode && !locking && !locked) || !IsWanted(a)) return SQLITE_NOTFOUND;
  // Also as the connection's first statement, before anything is replicated.
  if (mode) {
    bool wal = a->region0 != nullptr;
    if (!wal)
      if (const int rc = ReadWalMode(a, &wal); rc != SQLITE_OK) return rc;
    if (wal) return RefusePragma(arguments, a->path, "journal_mode must stay WAL");
  }
  if (locking || locked)
    return RefusePragma(arguments, a->path, "locking_mode must stay NORMAL (in EXCLUSIVE mode commits cannot be seen)");
  return SQLITE_NOTFOUND;
}

int FileControl(sqlite3_file* f, int op, void* argument) {
  AdoptedFile* a = Find(f);
  if (op == SQLITE_FCNTL_PRAGMA && !a->own) {
    const int rc =
        AtEdge("read a pragma", SQLITE_NOTFOUND, [&] { return FilePragma(a, static_cast<char**>(argument)); });
    if (rc != SQLITE_NOTFOUND) return rc;
  }
  const int rc = a->lower->xFileControl(f, op, argument);
  if (op == SQLITE_FCNTL_COMMIT_PHASETWO) {
    Database* database = a->own ? nullptr : a->bound.load(std::memory_order_acquire);
    if (database != nullptr && database->unserved()) [[unlikely]]
      AtEdge("start to replicate", false, [&] {
        Files().hooks.unserved(database);
        return true;
      });
    if (database != nullptr && database->commit_wait() != 0) {
      // What is committed to a file that is not at its path any more, no replica gets.
      if (FileIdOf(a->path) != a->id) return SQLITE_IOERR;
      const int waited =
          AtEdge("wait for the store", SQLITE_IOERR, [&] { return Files().hooks.after_commit(database); });
      if (waited != SQLITE_OK) return waited;
    }
  }
  return rc;
}

int FileShmMap(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  AdoptedFile* a = Find(f);
  const int rc = a->lower->xShmMap(f, region, size, extend, out);
  if (region == 0 && rc == SQLITE_OK && *out != nullptr) {
    a->region0 = *out;
    a->mapped.store(true);
    a->used_wal = true;
    const int refused = a->wal_seen ? SQLITE_OK : SeeWal(a);
    if (refused != SQLITE_OK) {
      // Asked again at the next try.
      a->region0 = *out = nullptr;
      a->mapped.store(false);
      a->wal_seen = false;
      return refused;
    }
    // There was no memory: its next transaction comes here again (FileShmLock).
    if (!a->wal_seen) {
      a->region0 = nullptr;
      a->mapped.store(false);
    }
  }
  return rc;
}

int FileShmLock(sqlite3_file* f, int offset, int n, int flags) {
  AdoptedFile* a = Find(f);
  if (a->region0 == nullptr) [[unlikely]] {
    // Adopted after its connection had mapped the wal-index, which it will not do again.
    void volatile* region = nullptr;
    const int mapped = FileShmMap(f, 0, kWalIndexRegion, 0, &region);
    // A wal-index that it cannot write to: it reads, and commits nothing.
    const bool reader = (mapped & 0xff) == SQLITE_READONLY;
    if (mapped != SQLITE_OK && !reader && (flags & SQLITE_SHM_LOCK) != 0)
      return mapped;  // a replica is required, and there is none
  }
  if (offset == kWriteLock && flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)) {
    Database* database = a->own ? nullptr : a->captured();
    if (database != nullptr && a->region0 != nullptr) database->Tap(a->region0);
    return a->lower_shm_lock(f, offset, n, flags);
  }
  a->asked_exclusive = false;
  // The wal-index was recovered just now (walIndexRecover): SQLite counts from 0.
  if (flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE) && offset <= kRecoverLock && offset + n > kRecoverLock)
    if (Database* database = a->captured(); database != nullptr && a->region0 != nullptr)
      database->JudgeChain(a->region0, true);
  const int rc = a->lower_shm_lock(f, offset, n, flags);
  if (rc != SQLITE_OK || (flags & SQLITE_SHM_LOCK) == 0) {
    if (n == 1 && offset == kCheckpointLock && (flags & SQLITE_SHM_UNLOCK) != 0) a->checkpoints = false;
    if (a->own && rc == SQLITE_OK && offset >= kReadLock0 && n == 1 && (flags & SQLITE_SHM_SHARED) != 0)
      a->read_mark = -1;
    return rc;
  }
  if ((flags & SQLITE_SHM_SHARED) != 0) {
    if (offset < kReadLock0 || n != 1) return rc;
    if (a->own) a->read_mark = offset - kReadLock0;
    if (a->judged.load(std::memory_order_relaxed)) [[likely]]
      return rc;
    if (Database* database = a->captured(); database != nullptr && a->region0 != nullptr) {
      a->judged.store(true, std::memory_order_relaxed);
      database->JudgeChain(a->region0, false);
    }
    if (Database* database = a->bound.load(std::memory_order_acquire); database != nullptr && !a->own)
      AtEdge("begin to replicate a database", false, [&] {
        if (Files().hooks.in_use) Files().hooks.in_use(database);
        return true;
      });
    return rc;
  }
  if (n == 1 && offset == kCheckpointLock) a->checkpoints = true;
  const bool restarts = n == 4 && offset == kReadLock0 + 1;  // all read marks but 0 (walRestartLog, walCheckpoint)
  const bool checkpoints = n == 1 && offset == kCheckpointLock;
  if (!restarts && !checkpoints) return rc;
  Database* database = a->captured();
  if (database == nullptr || a->region0 == nullptr) return rc;
  if (restarts)
    database->PassGate(a->region0, a->checkpoints ? Database::RestartBy::kCheckpoint : Database::RestartBy::kWriter);
  // Before the file is another one, by which nobody could tell any more which WAL is the next.
  if (checkpoints)
    AtEdge("look at the WAL", false, [&] {
      WalIndexHeader header;
      return database->Look(a->region0, &header).ok();
    });
  return rc;
}

// This connection does not use the wal-index any more.
void LeaveIndex(AdoptedFile* a) noexcept {
  AtEdge("leave a database", false, [a] {
    std::shared_ptr<Database> database;
    {
      Registry& r = Files();
      std::lock_guard<std::mutex> lock(r.mutex);
      if (a->user) database = a->database;
      a->user = false;
    }
    if (database != nullptr) database->RemoveUser();
    return true;
  });
}

int FileShmUnmap(sqlite3_file* f, int remove) {
  AdoptedFile* a = Find(f);
  // The last close has checkpointed all of the WAL, and deletes it next or, with PERSIST_WAL, leaves it
  // (sqlite3WalClose). Noted before: a process killed in between leaves a WAL that still has its salts.
  Database* database = a->region0 == nullptr ? nullptr : a->captured();
  if (database != nullptr && a->closing) database->NoteClosed();
  // Somebody else has it open. Who comes before he goes and after we went is the first of ours, and finds a wal-index
  // of which nothing is known.
  if (database != nullptr && !a->closing) database->AwaitQuiet(a->region0);
  a->region0 = nullptr;
  a->mapped.store(false);
  a->wal_seen = false;
  // Before the wal-index is let go, and not after: while somebody counts as a user, the index is taken to be the same
  // one.
  LeaveIndex(a);
  return a->lower->xShmUnmap(f, remove);
}

// --- adoption

// True when the file has one already: a VFS that passes the file on to another hooked VFS has it adopted below.
bool IsAdopted(sqlite3_file* f) {
  return f->pMethods->xClose == FileClose || Search(f) != nullptr;
}

// True when this process has the file open for writing, or that cannot be told. By names in /proc: descriptors belong
// to other threads, which may close them meanwhile.
bool HasWritableDescriptor(const FileId& id) {
  DIR* descriptors = ::opendir("/proc/self/fd");
  if (descriptors == nullptr) return true;
  bool found = false;
  while (const dirent* entry = ::readdir(descriptors)) {
    const std::string number = entry->d_name;
    if (number[0] == '.' || FileIdOf("/proc/self/fd/" + number) != id) continue;
    unsigned flags = O_RDWR;
    if (FILE* info = std::fopen(("/proc/self/fdinfo/" + number).c_str(), "re"); info != nullptr) {
      char line[64];
      while (std::fgets(line, sizeof line, info) != nullptr)
        if (std::strncmp(line, "flags:", 6) == 0) flags = static_cast<unsigned>(std::strtoul(line + 6, nullptr, 8));
      std::fclose(info);
    }
    found = found || (flags & O_ACCMODE) != O_RDONLY;
  }
  ::closedir(descriptors);
  return found;
}

// True for a file whose methods are SQLite's own, or of a VFS that vfs-allow names, and that a pager uses itself.
bool MayAdopt(const sqlite3_file* f, bool sqlites_own) {
  return IsPagersFile(f) &&
         (!sqlites_own || SameLibrary(f->pMethods, reinterpret_cast<const void*>(sqlite3_api->libversion)));
}

// `vfs`: the name of the one that opened it; null: not known. Throws when there is no memory; then nothing has
// happened.
void Adopt(sqlite3_file* f, std::string path, const char* name, const char* vfs, bool own, bool read_only) {
  auto owner = std::make_unique<AdoptedFile>();
  AdoptedFile* a = owner.get();
  a->lower = f->pMethods;
  a->file = f;
  // Adopted some time after it was opened, its path may name another file by now.
  int moved = 0;
  const bool is_it = f->pMethods->xFileControl(f, SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK || moved == 0;
  a->id = is_it ? FileIdOf(path) : kNoFile;
  a->path = std::move(path);
  if (vfs != nullptr) a->vfs = vfs;
  a->name = name;
  a->own = own;
  a->read_only = read_only;
  const sqlite3_io_methods& lower = *a->lower;
  sqlite3_io_methods& m = a->methods;
  m = {};
  // Only the methods that the lower version has; SQLite looks at iVersion before it calls the later ones.
  m.iVersion = std::min(lower.iVersion, 3);
  m.xClose = FileClose;
  m.xRead = lower.xRead;
  m.xWrite = lower.xWrite;
  m.xTruncate = lower.xTruncate;
  m.xSync = lower.xSync;
  m.xFileSize = lower.xFileSize;
  m.xLock = FileLock;
  m.xUnlock = FileUnlock;
  m.xCheckReservedLock = lower.xCheckReservedLock;
  m.xFileControl = FileControl;
  m.xSectorSize = lower.xSectorSize;
  m.xDeviceCharacteristics = lower.xDeviceCharacteristics;
  if (m.iVersion >= 2 && lower.xShmMap != nullptr) {
    m.xShmMap = FileShmMap;
    m.xShmLock = FileShmLock;
    a->lower_shm_lock = OriginalShmLock(a->lower);
    m.xShmBarrier = lower.xShmBarrier;
    m.xShmUnmap = FileShmUnmap;
  }
  if (m.iVersion >= 3) {
    m.xFetch = lower.xFetch;
    m.xUnfetch = lower.xUnfetch;
  }
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  r.files.push_back(a);
  (void)owner.release();  // FileClose deletes it
  f->pMethods = &a->methods;
}

// In the method table that files share: a connection that was open before libreplica was loaded begins or ends a
// transaction. Its thread holds the connection's mutex, so nobody else uses the file.
int LateShmLock(sqlite3_file* f, int offset, int n, int flags, ShmLockMethod original) {
  void volatile* region = nullptr;
  // One that a wrapping VFS has opened is none of ours.
  if (!IsPagersFile(f) || f->pMethods->xShmMap(f, 0, kWalIndexRegion, 0, &region) != SQLITE_OK || region == nullptr)
    return original(f, offset, n, flags);
  // Adopted also when its path cannot be told (empty): then it is left alone from now on. Its URI parameters are not
  // known any more.
  const bool adopted = AtEdge("see a connection", false, [&] {
    const std::string path = DatabaseOfIndex(region);
    Adopt(f, path, nullptr, "unix", false, !path.empty() && !HasWritableDescriptor(FileIdOf(path)));
    return true;
  });
  if (!adopted) return original(f, offset, n, flags);
  return f->pMethods->xShmLock(f, offset, n, flags);
}

// SQLite in the child takes the locks of libreplica's connection in the parent for its own, and would take none for the
// child's new connections to that file: then another process could delete the WAL under them. Closing a file drops the
// locks of the process that closes it only. Not done in the fork handler: that runs also before an exec, when SQLite's
// mutexes may belong to threads that the child does not have.
void CloseOrphans() noexcept {
  std::vector<AdoptedFile*> orphans;
  {
    Registry& r = Files();
    std::lock_guard<std::mutex> lock(r.mutex);
    orphans.swap(r.orphans);
  }
  for (AdoptedFile* a : orphans) {
    if (a->region0 != nullptr) (void)a->lower->xShmUnmap(a->file, 0);
    (void)a->lower->xClose(a->file);
  }
}

int HookedOpen(sqlite3_vfs* vfs, const char* name, sqlite3_file* f, int flags, int* out_flags) noexcept {
  OpenMethod lower = nullptr;
  bool known = false;
  ShimHooks* hooks = nullptr;
  {
    Registry& r = Files();
    std::lock_guard<std::mutex> lock(r.mutex);
    auto found = r.lower_open.find(vfs);
    known = found != r.lower_open.end();
    // A VFS made by copying one that is hooked has its xOpen; what else it does is not known.
    if (!known)
      found = std::find_if(r.lower_open.begin(), r.lower_open.end(),
                           [&](const auto& hooked) { return hooked.second.data == vfs->pAppData; });
    if (found != r.lower_open.end()) lower = found->second.open;
    hooks = &r.hooks;
  }
  if (lower == nullptr) {
    f->pMethods = nullptr;
    return SQLITE_CANTOPEN;
  }
  const bool main_database = known && !probing && (flags & SQLITE_OPEN_MAIN_DB) != 0 && name != nullptr &&
                             (flags & SQLITE_OPEN_DELETEONCLOSE) == 0 && IsPagersFile(f);
  const bool own = OwnConnectionScope::active();
  if (main_database && !own && hooks->before_open) {
    const int refused = AtEdge("restore a missing database", SQLITE_CANTOPEN, [&] {
      Status status = hooks->before_open(name, name, (flags & SQLITE_OPEN_CREATE) != 0);
      if (status.ok()) return SQLITE_OK;
      sqlite3_log(SQLITE_CANTOPEN, "libreplica: %s", status.message().c_str());
      // xOpen has no way to tell, and few applications read SQLite's log: an open that fails must not be a riddle.
      (void)std::fprintf(stderr, "libreplica: %s\n", status.message().c_str());
      return SQLITE_CANTOPEN;
    });
    if (refused != SQLITE_OK) {
      f->pMethods = nullptr;
      return refused;
    }
  }
  if (main_database) CloseOrphans();
  int opened = flags;
  const int rc = lower(vfs, name, f, flags, &opened);
  if (out_flags != nullptr) *out_flags = opened;
  if (rc == SQLITE_OK && main_database && f->pMethods != nullptr)
    AtEdge("see a database", false, [&] {
      if (!IsAdopted(f) && MayAdopt(f, IsSqlitesOwnVfs(vfs, lower)))
        Adopt(f, name, name, vfs->zName, own, (opened & SQLITE_OPEN_READONLY) != 0);
      return true;
    });
  return rc;
}

}  // namespace

void SetShimHooks(ShimHooks hooks) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  r.hooks = std::move(hooks);
}

namespace {

struct Probing {
  Probing() { probing = true; }
  ~Probing() { probing = false; }
  Probing(const Probing&) = delete;
  Probing& operator=(const Probing&) = delete;
};

}  // namespace

void InstallShim(sqlite3_vfs* vfs) {
  if (vfs == nullptr || probing) return;
  // One at a time. The registry's mutex comes after: a VFS may open its files through one that is hooked already.
  Registry& r = Files();
  std::lock_guard<std::mutex> install(r.installing);
  // By its method, not by its address: another VFS may have been freed there.
  if (vfs->xOpen == HookedOpen || !IsKnownVfs(vfs, vfs->xOpen)) return;
  if (IsSqlitesOwnVfs(vfs, vfs->xOpen)) {
    const Probing scope;  // it throws when there is no memory
    Status status = HookSharedShmLock(vfs, LateShmLock);
    if (!status.ok())
      sqlite3_log(SQLITE_WARNING, "libreplica: commits of connections opened before the load are seen late: %s",
                  status.message().c_str());
  }
  std::lock_guard<std::mutex> lock(r.mutex);
  r.lower_open[vfs] = {vfs->xOpen, vfs->pAppData};
  __atomic_store_n(&vfs->xOpen, static_cast<OpenMethod>(&HookedOpen), __ATOMIC_RELEASE);
}

namespace {

// The xOpen that a VFS had before it was hooked, or has.
OpenMethod OriginalOpen(const sqlite3_vfs* vfs) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  auto found = r.lower_open.find(const_cast<sqlite3_vfs*>(vfs));
  return vfs->xOpen == HookedOpen && found != r.lower_open.end() ? found->second.open : vfs->xOpen;
}

}  // namespace

std::string WhyUntouched(sqlite3* db, const char* schema) {
  std::string host = UnsupportedHost(db);
  if (!host.empty()) return host;
  sqlite3_vfs* vfs = nullptr;
  if (sqlite3_file_control(db, schema, SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK || vfs == nullptr)
    vfs = sqlite3_vfs_find(nullptr);
  if (vfs == nullptr || IsKnownVfs(vfs, OriginalOpen(vfs))) return "";
  return std::string("the connection uses the VFS \"") + vfs->zName +
         "\", which may encrypt or change pages; libreplica replicates databases on SQLite's own unix VFSes, and on "
         "those "
         "that the setting vfs-allow (REPLICA_VFS_ALLOW) names";
}

bool AdoptConnection(sqlite3* db, const char* schema) {
  sqlite3_file* f = nullptr;
  const int rc = sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, &f);
  if (rc != SQLITE_OK || f == nullptr || f->pMethods == nullptr) return false;
  const char* name = sqlite3_db_filename(db, schema);
  if (name == nullptr || *name == 0) return false;
  if (IsAdopted(f)) return true;
  sqlite3_vfs* vfs = nullptr;
  (void)sqlite3_file_control(db, schema, SQLITE_FCNTL_VFS_POINTER, &vfs);
  if (vfs == nullptr || !IsKnownVfs(vfs, OriginalOpen(vfs)) || !MayAdopt(f, IsSqlitesOwnVfs(vfs, OriginalOpen(vfs))))
    return false;
  // If it has the wal-index mapped, its next transaction shows that (FileShmLock): nothing is read here.
  Adopt(f, name, name, vfs->zName, false, sqlite3_db_readonly(db, schema) == 1);
  return true;
}

void AdoptOpenDatabases(sqlite3* db) {
  // By index, as sqlite3_db_name counts them: a PRAGMA would run on the application's connection. 1 is "temp".
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++)
    if (i != 1) AdoptConnection(db, schema);
}

std::string PragmaText(sqlite3* db, const std::string& schema, const std::string& pragma) {
  char* sql = sqlite3_mprintf("PRAGMA \"%w\".%s", schema.c_str(), pragma.c_str());
  sqlite3_stmt* statement = nullptr;
  std::string answer;
  if (sql != nullptr && sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 0) != nullptr)
    answer = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
  sqlite3_finalize(statement);
  sqlite3_free(sql);
  return answer;
}

void BindFiles(const std::shared_ptr<Database>& database) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  for (AdoptedFile* a : r.files) {
    if (a->path != database->path() || a->own || a->read_only) continue;
    if (!a->vfs.empty()) database->SetVfs(a->vfs);
    if (a->database != database) {
      if (a->database != nullptr) {
        if (a->user) a->database->RemoveUser();
        a->earlier.push_back(std::move(a->database));  // a thread may be inside the tap
      }
      a->database = database;
      a->user = false;
    }
    BecomeUser(a);
    a->bound.store(database.get(), std::memory_order_release);
  }
}

void UnbindFiles(const std::shared_ptr<Database>& database) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  // `database` stays until the file is closed: a thread may be inside the tap. But it is no user any more, as nobody
  // sees its commits.
  for (AdoptedFile* a : r.files) {
    if (a->database != database) continue;
    a->bound.store(nullptr, std::memory_order_release);
    if (std::exchange(a->user, false)) a->database->RemoveUser();
  }
}

int OpenFiles(const std::string& path) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  const FileId id = FileIdOf(path);
  return static_cast<int>(std::count_if(r.files.begin(), r.files.end(), [&](AdoptedFile* a) {
    return !a->own && a->path == path && a->id == id && a->bound.load(std::memory_order_relaxed) != nullptr &&
           a->judged.load(std::memory_order_relaxed);
  }));
}

bool IsFileOpen(const std::string& path) {
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  return std::any_of(r.files.begin(), r.files.end(), [&](AdoptedFile* a) { return !a->own && a->path == path; });
}

OwnConnectionScope::OwnConnectionScope() {
  if (own_connections++ == 0) InsideSqlite()->lock_shared();
}
OwnConnectionScope::~OwnConnectionScope() {
  if (--own_connections == 0) InsideSqlite()->unlock_shared();
}
bool OwnConnectionScope::active() {
  return own_connections > 0;
}

int HeldReadMark(sqlite3_file* own_file) {
  AdoptedFile* a = Find(own_file);
  return a == nullptr ? -1 : a->read_mark;
}

void BindOwnFile(sqlite3_file* own_file, const std::shared_ptr<Database>& database) {
  AdoptedFile* a = Find(own_file);
  if (a == nullptr) return;
  Registry& r = Files();
  std::lock_guard<std::mutex> lock(r.mutex);
  a->database = database;
  a->user = true;
  database->AddUser();
  a->bound.store(database.get(), std::memory_order_release);
}

void HoldFilesForFork() {
  InsideSqlite()->lock();
  Files().mutex.lock();
}

void ReleaseFilesAfterFork() {
  Files().mutex.unlock();
  InsideSqlite()->unlock();
}

void ForgetFilesAfterFork() {
  // The parent's threads do not exist here: start with a new registry, keep the hooks. The application's connections
  // stay open in the child's memory and pass through, unbound, if they are used at all. What they hold on to is the
  // parent's and is never touched again.
  Registry* old = RegistryPointer();
  auto* fresh = new Registry;
  fresh->hooks = old->hooks;
  fresh->lower_open = old->lower_open;
  for (AdoptedFile* a : old->files) {
    a->bound.store(nullptr);
    new std::shared_ptr<Database>(std::move(a->database));
    new std::vector<std::shared_ptr<Database>>(std::move(a->earlier));
    a->database.reset();
    a->earlier.clear();
    (a->own ? fresh->orphans : fresh->files).push_back(a);
    a->own = true;
  }
  fresh->orphans.insert(fresh->orphans.end(), old->orphans.begin(), old->orphans.end());
  RegistryPointer() = fresh;
  InsideSqlite() = new std::shared_mutex;
}

}  // namespace replica

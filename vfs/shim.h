// The shim: sees every file that SQLite opens as a main database, and puts a method table of its own in front of the
// one the file has. So a file opened before libreplica was loaded and one opened after are the same to it.
//
// How a file gets here: Install hooks xOpen of a VFS (the default one, and that of each connection that loads us), so
// that an ATTACH on an old connection is seen as well as a new connection; Adopt takes the file of an open connection.
// Hooking xOpen in place rather than registering a VFS of our own is what makes that ATTACH work: it names its
// connection's VFS, not the default one.
//
// Each adopted file has one AdoptedFile, which holds its method table: f->pMethods points into it, so that finding it
// costs nothing. It dies with xClose. Files that are no replicated database pass through untouched.
#ifndef LIBREPLICA_VFS_SHIM_H_
#define LIBREPLICA_VFS_SHIM_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "vfs/database.h"
#include "vfs/sqlite_api.h"

namespace replica {

// What the layer above does when files come and go. Called on the application's threads; set once, before Install.
struct ShimHooks {
  // A main database file was opened, or is about to be: `path` is absolute. `name` is SQLite's filename, for URI
  // parameters; `created` when it may be created. An error refuses the open with its message in the log.
  std::function<Status(const std::string& path, const char* name, bool may_create)> before_open;
  // The file's connection uses the WAL for the first time: the database it belongs to, or null when it is not
  // replicated.
  std::function<std::shared_ptr<Database>(const std::string& path, const char* name)> wal_opened;
  // A connection to a replicated database has its first read lock: the wal-index is whole, so that whoever opens the
  // database now does not stand in the application's way with a recovery.
  std::function<void(Database* database)> in_use;
  // The last adopted file of a replicated database in this process was closed.
  std::function<void(const std::shared_ptr<Database>&)> last_close;
  // COMMIT_PHASETWO of a transaction on a database whose commits wait (Database::commit_wait): returns an SQLite result
  // code (SQLITE_OK unless the wait was given up).
  // `database` lives as long as the file is open.
  std::function<int(Database* database)> after_commit;
  // COMMIT_PHASETWO on a database that is not served (Database::unserved).
  std::function<void(Database* database)> unserved;
  // True when the configuration, or the name's URI parameters, want the database replicated.
  std::function<bool(const std::string& path, const char* name)> wanted;
  // True when it is wanted, is not replicated, and must not be used then (a required replica).
  std::function<bool(const std::string& path)> refused;
  // It is wanted and cannot be replicated. True when that must refuse what the connection is about to do (a required
  // replica).
  std::function<bool(const std::string& path, const char* why)> not_replicated;
};

void SetShimHooks(ShimHooks hooks);

// Hooks a VFS's xOpen (once; thread-safe), if it is one that the shim may touch (vfs/known_vfs.h).
void InstallShim(sqlite3_vfs* vfs);

// Why the shim leaves a connection's database alone; empty when it does not.
std::string WhyUntouched(sqlite3* db, const char* schema);

// Adopts the file of an open connection's schema unless it is adopted already. False for one without a file (in
// memory) and for one that the shim may not touch. Reads nothing and runs nothing on `db`.
bool AdoptConnection(sqlite3* db, const char* schema);
// AdoptConnection for main and every attached database.
void AdoptOpenDatabases(sqlite3* db);
// The answer of a PRAGMA's first row and column ("main.journal_mode"); empty when there is none.
std::string PragmaText(sqlite3* db, const std::string& schema, const std::string& pragma);

// Binds every adopted file of `database`'s path to it; their taps work from now on.
void BindFiles(const std::shared_ptr<Database>& database);
// Undoes BindFiles (detach).
void UnbindFiles(const std::shared_ptr<Database>& database);
// Number of files that the application uses through the shim in this process, are bound to a database, and are what the
// path names now.
int OpenFiles(const std::string& path);
// True when the application has a file of that path open through the shim, bound or not.
bool IsFileOpen(const std::string& path);

// While one is alive, files that this thread opens are libreplica's own: not adopted as the application's, but their
// read locks are followed.
class OwnConnectionScope {
 public:
  OwnConnectionScope();
  ~OwnConnectionScope();
  OwnConnectionScope(const OwnConnectionScope&) = delete;
  OwnConnectionScope& operator=(const OwnConnectionScope&) = delete;
  static bool active();
};

// The read mark (0…4) that a connection of libreplica's own holds; -1 for none.
int HeldReadMark(sqlite3_file* own_file);
// Makes the restart gate hold for a connection of libreplica's own too: its close may be the last one.
void BindOwnFile(sqlite3_file* own_file, const std::shared_ptr<Database>& database);

// After fork(), in the child: files and databases of the parent's are no longer ours.
void ForgetFilesAfterFork();
// Before fork(), and after it in the parent: waits until no thread of libreplica's is inside SQLite, and keeps it so.
void HoldFilesForFork();
void ReleaseFilesAfterFork();

}  // namespace replica

#endif  // LIBREPLICA_VFS_SHIM_H_

// The extension's entry point. The one translation unit with SQLITE_EXTENSION_INIT1.
#include <sqlite3ext.h>

#include <mutex>
#include <string>

#include "ext/hub.h"
#include "ext/replica.h"
#include "sql/functions.h"
#include "sql/tables.h"
#include "vfs/shim.h"

SQLITE_EXTENSION_INIT1

namespace {

constexpr int kOldestSqlite = 3040000;

int Refuse(char** error, const std::string& message) {
  if (error != nullptr) *error = sqlite3_mprintf("%s", message.c_str());
  return SQLITE_ERROR;
}

// sqlite3_auto_extension takes and calls our entry point with its real signature
// (https://sqlite.org/c3ref/auto_extension.html).
void RegisterForNewConnections() {
  sqlite3_auto_extension(reinterpret_cast<void (*)(void)>(&sqlite3_replica_init));
}

int Init(sqlite3* db, char** error) {
  if (replica::OwnConnectionScope::active()) return SQLITE_OK;
  if (sqlite3_libversion_number() < kOldestSqlite)
    return Refuse(error,
                  std::string("libreplica needs SQLite 3.40 or later; this process has ") + sqlite3_libversion());
  if (sqlite3_threadsafe() == 0)
    return Refuse(error, "libreplica needs an SQLite built with SQLITE_THREADSAFE=1 or 2; this one was built with 0");
  replica::Status status = replica::Hub::Get().Load();
  if (!status.ok()) return Refuse(error, "libreplica: " + status.message());
  static std::once_flag warned;
  std::call_once(warned, [] {
    for (const std::string& warning : replica::Hub::Get().config().warnings)
      sqlite3_log(SQLITE_WARNING, "libreplica: %s", warning.c_str());
  });
  const char* name = sqlite3_db_filename(db, "main");
  if (name != nullptr && *name != 0) {
    status = replica::Hub::Get().BeforeAdoption(name, name);
    if (!status.ok()) return Refuse(error, "libreplica: " + status.message());
  }
  int rc = replica::RegisterFunctions(db);
  if (rc == SQLITE_OK) rc = replica::RegisterTables(db);
  if (rc != SQLITE_OK)
    return Refuse(error, std::string("libreplica cannot register its functions: ") + sqlite3_errmsg(db));

  // From here on the library stays: first what can fail, then what others will call into.
  RegisterForNewConnections();
  replica::InstallShim(sqlite3_vfs_find(nullptr));
  sqlite3_vfs* own = nullptr;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &own);
  replica::InstallShim(own);
  replica::AdoptOpenDatabases(db);
  // Not SQLITE_OK_LOAD_PERMANENTLY: an automatic extension must say SQLITE_OK. The library is linked with -z nodelete,
  // so the dlclose of a connection that loaded it leaves it where threads and method tables need it.
  return SQLITE_OK;
}

}  // namespace

extern "C" REPLICA_API int sqlite3_replica_init(sqlite3* db, char** error_message, const sqlite3_api_routines* api) {
  // Set once: our threads read it while other connections load us.
  static std::once_flag once;
  std::call_once(once, [api] { SQLITE_EXTENSION_INIT2(api); });
  if (api != nullptr && api->malloc64 != sqlite3_api->malloc64) {
    // Its messages must be made with its own allocator.
    if (error_message != nullptr)
      *error_message =
          api->mprintf("libreplica is loaded into another SQLite library of this process; it works with one");
    return SQLITE_ERROR;
  }
  return Init(db, error_message);
}

extern "C" REPLICA_API const char* replica_version_string(void) {
  return LIBREPLICA_VERSION;
}

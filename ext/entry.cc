// The extension's entry point. The one translation unit with SQLITE_EXTENSION_INIT1.
#include <sqlite3ext.h>

#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <string>

#include "ext/hub.h"
#include "ext/replica.h"
#include "sql/functions.h"
#include "sql/tables.h"
#include "vfs/known_vfs.h"
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
  if (sqlite3_auto_extension(reinterpret_cast<void (*)(void)>(&sqlite3_replica_init)) != SQLITE_OK)
    throw std::bad_alloc();
}

// SQLITE_CONFIG_SINGLETHREAD at run time: connections have no mutexes, whatever they ask for. Our threads would use
// SQLite beside the application's.
bool IsSingleThreaded() {
  static const bool single = [] {
    const replica::OwnConnectionScope own;
    sqlite3* db = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY | SQLITE_OPEN_FULLMUTEX;
    const bool none = sqlite3_open_v2(":memory:", &db, flags, nullptr) == SQLITE_OK && sqlite3_db_mutex(db) == nullptr;
    sqlite3_close(db);
    return none;
  }();
  return single;
}

int Init(sqlite3* db, char** error) {
  if (replica::OwnConnectionScope::active()) return SQLITE_OK;
  if (sqlite3_threadsafe() == 0)
    return Refuse(error, "libreplica needs an SQLite built with SQLITE_THREADSAFE=1 or 2; this one was built with 0");
  if (IsSingleThreaded())
    return Refuse(error, "libreplica needs SQLite's mutexes; this process has set SQLITE_CONFIG_SINGLETHREAD");
  replica::Hub& hub = replica::Hub::Get();
  replica::Status status = hub.Load();
  if (!status.ok()) return Refuse(error, "libreplica: " + status.message());
  static std::once_flag warned;
  std::call_once(warned, [&hub] {
    for (const std::string& warning : hub.config().warnings)
      sqlite3_log(SQLITE_WARNING, "libreplica: %s", warning.c_str());
  });
  const char* name = sqlite3_db_filename(db, "main");
  if (name != nullptr && *name == 0) name = nullptr;
  const std::string untouched = replica::WhyUntouched(db, "main");
  if (!untouched.empty()) {
    if (hub.config().required) return Refuse(error, "libreplica: a replica is required, and " + untouched);
    if (name != nullptr) hub.NotReplicated(name, untouched);
  }
  if (name != nullptr && untouched.empty()) {
    status = hub.BeforeAdoption(name, name);
    if (!status.ok()) return Refuse(error, "libreplica: " + status.message());
  }
  int rc = replica::RegisterFunctions(db);
  if (rc == SQLITE_OK) rc = replica::RegisterTables(db);
  if (rc != SQLITE_OK)
    return Refuse(error, std::string("libreplica cannot register its functions: ") + sqlite3_errmsg(db));

  // From here on the library stays: first what can fail, then what others will call into.
  RegisterForNewConnections();
  if (!replica::UnsupportedHost(db).empty()) return SQLITE_OK;
  replica::InstallShim(sqlite3_vfs_find(nullptr));
  sqlite3_vfs* own = nullptr;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &own);
  replica::InstallShim(own);
  replica::AdoptOpenDatabases(db);
  // Not SQLITE_OK_LOAD_PERMANENTLY: an automatic extension must say SQLITE_OK. The library is linked with -z nodelete,
  // so the dlclose of a connection that loaded it leaves it where threads and method tables need it.
  return SQLITE_OK;
}

// An SQLite built with SQLITE_OMIT_LOAD_EXTENSION has no table of functions to hand to an automatic extension.
int InitWithoutApi() {
  const replica::Status status = replica::Hub::Get().Load();
  const char* why = "this SQLite was built with SQLITE_OMIT_LOAD_EXTENSION, which libreplica cannot work with";
  static std::once_flag told;
  std::call_once(told, [why] { (void)std::fprintf(stderr, "libreplica: nothing is replicated: %s\n", why); });
  return status.ok() && !replica::Hub::Get().config().required ? SQLITE_OK : SQLITE_ERROR;
}

std::mutex api_mutex;

}  // namespace

extern "C" REPLICA_API int sqlite3_replica_init(sqlite3* db, char** error_message, const sqlite3_api_routines* api) {
  // C at the edge: no exception crosses it (out of memory, no thread).
  try {
    if (api == nullptr) return InitWithoutApi();
    {
      // Set once, by the first SQLite that is new enough: our threads read it while other connections load us.
      std::lock_guard<std::mutex> lock(api_mutex);
      if (sqlite3_api == nullptr && api->libversion_number() >= kOldestSqlite) SQLITE_EXTENSION_INIT2(api);
    }
    if (sqlite3_api == nullptr) {
      if (error_message != nullptr)
        *error_message = api->mprintf("libreplica needs SQLite 3.40 or later; this process has %s", api->libversion());
      return SQLITE_ERROR;
    }
    if (api->malloc64 != sqlite3_api->malloc64) {
      // Its messages must be made with its own allocator.
      if (error_message != nullptr)
        *error_message =
            api->mprintf("libreplica is loaded into another SQLite library of this process; it works with one");
      return SQLITE_ERROR;
    }
    return Init(db, error_message);
  } catch (const std::exception& e) {
    if (error_message != nullptr && api != nullptr)
      *error_message = api->mprintf("libreplica: cannot start: %s", e.what());
    return SQLITE_NOMEM;
  }
}

extern "C" REPLICA_API const char* replica_version_string(void) {
  return LIBREPLICA_VERSION;
}

/*
** libreplica: a live, verifiable copy of SQLite databases in object storage.
**
** Load the extension (.load libreplica, load_extension), or link the static library and call
**
**     sqlite3_auto_extension((void (*)(void))sqlite3_replica_init);
**
** once. Everything else is SQL (docs/sql.md) and the environment (docs/configuration.md).
*/
#ifndef LIBREPLICA_REPLICA_H
#define LIBREPLICA_REPLICA_H

#include <sqlite3.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define REPLICA_API __attribute__((visibility("default")))
#else
#define REPLICA_API
#endif

struct sqlite3_api_routines;

/*
** The extension's entry point, called by SQLite for each connection. Registers the SQL functions on `db`, sees every
** database file that is opened from now on or is open already (docs/architecture.md, "Shim"), and starts replication
** as the environment says. Stays loaded for the life of the process.
**
** Fails, with the missing settings by name in *error_message (free with sqlite3_free), when a replica is required
** (REPLICA_REQUIRED=1, or a production environment) and not configured; and when the host's SQLite is older than 3.40
** or built single-threaded. Thread-safe.
*/
REPLICA_API int sqlite3_replica_init(sqlite3* db, char** error_message, const struct sqlite3_api_routines* api);

/* "0.2.0" */
REPLICA_API const char* replica_version_string(void);

#ifdef __cplusplus
}
#endif

#endif /* LIBREPLICA_REPLICA_H */

// The SQL functions (docs/sql.md). Each connection gets its own registration; the functions themselves hold no state.
#ifndef LIBREPLICA_SQL_FUNCTIONS_H_
#define LIBREPLICA_SQL_FUNCTIONS_H_

#include "vfs/sqlite_api.h"

namespace replica {

// Registers replica_version, replica_attach, replica_detach, replica_status, replica_sync, replica_snapshot,
// replica_verify and replica_restore on `db`. Those with side effects are SQLITE_DIRECTONLY. Returns an SQLite result
// code.
int RegisterFunctions(sqlite3* db);

}  // namespace replica

#endif  // LIBREPLICA_SQL_FUNCTIONS_H_

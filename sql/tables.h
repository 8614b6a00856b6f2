// The eponymous tables replica_databases, replica_history and replica_events (docs/sql.md).
#ifndef LIBREPLICA_SQL_TABLES_H_
#define LIBREPLICA_SQL_TABLES_H_

#include "vfs/sqlite_api.h"

namespace replica {

// Returns an SQLite result code.
int RegisterTables(sqlite3* db);

}  // namespace replica

#endif  // LIBREPLICA_SQL_TABLES_H_

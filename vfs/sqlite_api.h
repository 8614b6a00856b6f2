// The SQLite that loaded us, through its extension API: a process may hold two SQLite libraries, and only this one may
// be called. The pointer is set once, in ext/entry.cc, before anything else runs.
#ifndef LIBREPLICA_VFS_SQLITE_API_H_
#define LIBREPLICA_VFS_SQLITE_API_H_

#include <sqlite3ext.h>

SQLITE_EXTENSION_INIT3

#endif  // LIBREPLICA_VFS_SQLITE_API_H_

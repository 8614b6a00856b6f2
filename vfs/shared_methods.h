// Connections that were open before libreplica was loaded, other than the one that loads it: SQLite has no way to list
// them, but the files of a VFS share one constant method table. Replacing xShmLock in it shows each of them as soon as
// it begins its next transaction; the shim then adopts the file and the shared table has done its part.
//
// The table is read-only memory of the SQLite library; its page is made writable for the moment of the store. Where
// that is not allowed the function says so, and commits of such connections are found as those of foreign processes
// are.
#ifndef LIBREPLICA_VFS_SHARED_METHODS_H_
#define LIBREPLICA_VFS_SHARED_METHODS_H_

#include <string>

#include "base/status.h"
#include "vfs/sqlite_api.h"

namespace replica {

using ShmLockMethod = int (*)(sqlite3_file*, int offset, int n, int flags);
// What happens at a call of a hooked xShmLock on a file that has the shared table itself, with nothing in front.
using LateShmLockMethod = int (*)(sqlite3_file*, int offset, int n, int flags, ShmLockMethod original);

// Puts `hook` in front of xShmLock in the method table that main database files of `vfs`, one of SQLite's own, share;
// once for each table. Serialised by the caller. The library must never be unloaded afterwards.
Status HookSharedShmLock(sqlite3_vfs* vfs, LateShmLockMethod hook);

// The xShmLock that a table had before it was hooked, or has. Lock-free.
ShmLockMethod OriginalShmLock(const sqlite3_io_methods* table);

// The path of the database whose wal-index is mapped at `region0`, as the kernel knows the mapping; empty when it
// cannot be told (removed, or not a file named "…-shm").
std::string DatabaseOfIndex(const volatile void* region0);

}  // namespace replica

#endif  // LIBREPLICA_VFS_SHARED_METHODS_H_

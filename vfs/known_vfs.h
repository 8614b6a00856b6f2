// Which files of which VFSes the shim may touch.
//
// The shim puts its method table in front of a file's own, and takes a WAL frame for the page that SQLite would read.
// Both hold for SQLite's own unix VFSes, and for VFSes that a person has named (the setting vfs-allow). They do not
// hold for a VFS that encrypts, adds checksums or compresses: some recognise their files by the address of the method
// table, and write plain text when it is another one. So anything else is left alone, also where such a VFS opens its
// files through a unix VFS that is hooked.
#ifndef LIBREPLICA_VFS_KNOWN_VFS_H_
#define LIBREPLICA_VFS_KNOWN_VFS_H_

#include <string>
#include <vector>

#include "vfs/sqlite_api.h"

namespace replica {

// Names that vfs-allow gives. Once, before the first InstallShim.
void AllowVfses(std::vector<std::string> names);

// One of SQLite's own unix VFSes, or one that is allowed. `open` is its xOpen, as it was before it was hooked.
bool IsKnownVfs(const sqlite3_vfs* vfs, int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*));
// SQLite's own, by name and by the library that its code lies in.
bool IsSqlitesOwnVfs(const sqlite3_vfs* vfs, int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*));

// True when both addresses lie in the same shared library or program.
bool SameLibrary(const void* one, const void* other);

// Learns from an open connection how SQLite's pager keeps its file. False when it does not in a way that is known; then
// no file may be touched. Thread-safe; the first call counts.
bool LearnPagerLayout(sqlite3* db);
// True when a pager uses this file object itself, rather than a VFS that has wrapped it. After LearnPagerLayout.
bool IsPagersFile(const sqlite3_file* f);

// Why databases of this connection cannot be replicated, in words; empty when they can.
std::string UnsupportedHost(sqlite3* db);

}  // namespace replica

#endif  // LIBREPLICA_VFS_KNOWN_VFS_H_

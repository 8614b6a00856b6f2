// Files that somebody else cuts short while they are mapped: the control block and SQLite's -shm.
#ifndef LIBREPLICA_CLI_LOST_MAPPING_H_
#define LIBREPLICA_CLI_LOST_MAPPING_H_

namespace replica {

// From now on an access to a page that its file has no more finds zeros instead of ending the process with SIGBUS: one
// user's truncated file must not end the uploading of all others. A database whose control block is lost so is closed
// and opened again (Database::Stale); of a truncated -shm SQLite itself says that it loses what it protects.
void SurviveLostMappings();

}  // namespace replica

#endif  // LIBREPLICA_CLI_LOST_MAPPING_H_

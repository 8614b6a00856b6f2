// Control blocks that somebody else cuts short while they are mapped.
#ifndef LIBREPLICA_CLI_LOST_MAPPING_H_
#define LIBREPLICA_CLI_LOST_MAPPING_H_

namespace replica {

// From now on an access to a page of a control block that its file has no more finds zeros instead of ending the
// process with SIGBUS: one user's truncated file must not end the uploading of all others. That database is
// Database::Stale() then, and is to be closed and opened again. Of a truncated -shm the process still dies: SQLite
// could not go on without doing harm.
void SurviveLostControlBlocks();

}  // namespace replica

#endif  // LIBREPLICA_CLI_LOST_MAPPING_H_

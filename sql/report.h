// What status and verify say, as JSON; and the database that a schema name means.
#ifndef LIBREPLICA_SQL_REPORT_H_
#define LIBREPLICA_SQL_REPORT_H_

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "uploader/history.h"
#include "uploader/restore.h"
#include "uploader/verify.h"
#include "vfs/sqlite_api.h"

namespace replica {

// The absolute path of a schema's file; kInvalidArgument for an unknown schema or one without a file.
Result<std::string> SchemaPath(sqlite3* db, const std::string& schema);

// The error for a function that needs a replicated database: says why this one is not.
Status NotReplicated(const std::string& path);

// replica_status: what the control block says, from whatever process the leader runs in. Never fails, never waits.
Json StatusReport(const std::string& path);

// replica_verify. `depth`: quick, full or objects. The error is for a verify that could not be done; a replica that is
// not right is "ok": false with "errors". `progress` may be empty.
Result<Json> VerifyReport(const std::string& path, const std::string& depth, const VerifyProgress& progress);

// replica_snapshot: the acknowledged TXID, once a snapshot of the present state is stored. `progress` may be empty.
Result<uint64_t> MakeSnapshot(const std::string& path, const VerifyProgress& progress);

// What a restore did.
Json RestoreReport(const std::string& path, const std::string& url, const RestoredDatabase& restored);

// One row of replica_history.
Json HistoryReport(const Store& store, const HistoryEntry& entry);
// The places where the clock was set back, as `history` prints them.
Json ClockStepsReport(const History& history);
// The log segments that are missing: generation, first and last sequence of each run.
Json HolesReport(const History& history);

}  // namespace replica

#endif  // LIBREPLICA_SQL_REPORT_H_

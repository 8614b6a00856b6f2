// A connection of libreplica's own to a database, and reads below it: of the wal-index, the WAL and the database file.
//
// A real SQLite connection keeps SQLite's own rules: it holds SHARED on the database file, so the WAL is not deleted
// under it. All reads of the database file go through its sqlite3_file: opening and closing the file by ourselves would
// drop the process's locks. Used by one thread.
#ifndef LIBREPLICA_VFS_OWN_CONNECTION_H_
#define LIBREPLICA_VFS_OWN_CONNECTION_H_

#include <memory>
#include <string>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/segment.h"
#include "vfs/database.h"
#include "vfs/sqlite_api.h"
#include "vfs/wal_format.h"

namespace replica {

// The state that a read transaction sees.
struct ReadState {
  // The read mark it holds. 1…4: this WAL cannot be restarted, the state is the commit at the mark. 0: the database
  // file is the state and cannot be written; the WAL can be restarted once, but not a second time.
  int mark = -1;
  WalPosition position;    // frame 0: no commit of this WAL belongs to it
  uint32_t pages = 0;      // database size by its last commit frame; 0 when there is none
  bool empty_wal = false;  // the WAL had no commit
};

class OwnConnection {
 public:
  // kUnsupported when the database is not in WAL mode.
  static Result<std::unique_ptr<OwnConnection>> Open(std::shared_ptr<Database> database);
  ~OwnConnection();
  OwnConnection(const OwnConnection&) = delete;
  OwnConnection& operator=(const OwnConnection&) = delete;

  const std::string& path() const { return database_->path(); }  // of the database file
  uint32_t page_size() const { return page_size_; }
  // The database file that is open.
  const FileId& file_id() const { return file_id_; }
  const volatile void* region0() const { return region0_; }

  // A consistent copy of the wal-index header; false when there is none yet.
  bool Index(WalIndexHeader* header) const;
  // Notes that the WAL ends where the header says (Database::SeeEnd).
  void SeeEnd(const WalIndexHeader& header) {
    database_->SeeEnd({header.wal_salts(), header.max_frame, header.changes});
  }
  // Frames of the WAL that checkpoints have copied into the database file (nBackfill).
  uint32_t Backfilled() const { return Info()->backfilled; }
  // kNotFound when the WAL is shorter.
  Status ReadFrameHeader(uint32_t frame, FrameHeader* header) const;
  bool ReadFramePage(uint32_t frame, uint8_t* out) const;
  // `size` bytes of the WAL at `offset`; 0 when it does not hold as many. `size` is below 2 GiB.
  Result<size_t> ReadWal(void* out, size_t size, uint64_t offset) const;
  // A page of the database file; zeros beyond its end.
  Status ReadFilePage(uint32_t page, uint8_t* out) const;
  // Size in pages by the database file alone.
  Result<uint32_t> FilePages() const;

  Status BeginRead(ReadState* state);
  void EndRead();
  // Runs a statement; its error names the database.
  Status Exec(const char* sql);
  // SQLITE_BUSY and its kin are answers, not errors.
  int TryExec(const char* sql);
  // Copies what it can of the WAL into the database file, waiting for nobody. SQLITE_BUSY: another checkpoint is at it.
  int Checkpoint();

 private:
  explicit OwnConnection(std::shared_ptr<Database> database);
  const volatile WalCheckpointInfo* Info() const {
    return reinterpret_cast<const volatile WalCheckpointInfo*>(static_cast<const volatile uint8_t*>(region0_) +
                                                               kCheckpointInfoOffset);
  }

  const std::shared_ptr<Database> database_;
  sqlite3* db_ = nullptr;
  sqlite3_stmt* rollback_ = nullptr;  // ready, so that ending a transaction takes no memory that may be missing
  sqlite3_file* file_ = nullptr;      // of db_
  const volatile void* region0_ = nullptr;
  sqlite3_file* wal_ = nullptr;  // db_'s own of the -wal
  uint32_t page_size_ = 0;
  FileId file_id_;
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_OWN_CONNECTION_H_

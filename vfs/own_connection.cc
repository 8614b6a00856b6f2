#include "vfs/own_connection.h"

#include <fcntl.h>

#include <atomic>
#include <utility>

#include "vfs/shim.h"

namespace replica {
namespace {

Status SqliteStatus(sqlite3* db, int rc, const std::string& action, const std::string& path) {
  return {rc == SQLITE_FULL ? Code::kFull : Code::kIo,
          action + " " + path + ": " + (db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(rc))};
}

}  // namespace

OwnConnection::OwnConnection(std::shared_ptr<Database> database) : database_(std::move(database)) {}

OwnConnection::~OwnConnection() {
  if (db_ == nullptr) return;
  OwnConnectionScope own;
  sqlite3_finalize(rollback_);
  // Ours is the last close in the place of the application's: the files are to be left as it wants them.
  int persist = database_->persist_wal() ? 1 : 0;
  (void)sqlite3_file_control(db_, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
  (void)sqlite3_db_config(db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, database_->no_checkpoint() ? 1 : 0, nullptr);
  // A WAL that is kept is cut to nothing by a close with any limit (sqlite3WalClose).
  if (const int64_t limit = database_->journal_size_limit(); persist != 0 && limit != Database::kDefaultLimit)
    (void)TryExec(limit < 0 ? "PRAGMA journal_size_limit=-1" : "PRAGMA journal_size_limit=0");
  sqlite3_close(db_);
}

Result<std::unique_ptr<OwnConnection>> OwnConnection::Open(std::shared_ptr<Database> database) {
  std::unique_ptr<OwnConnection> c(new OwnConnection(std::move(database)));
  const std::string& path = c->database_->path();
  OwnConnectionScope own;
  REPLICA_TRY(CheckDescriptors().In(path));
  const std::string vfs = c->database_->vfs();
  int rc = sqlite3_open_v2(path.c_str(), &c->db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE,
                           vfs.empty() ? nullptr : vfs.c_str());
  if (rc != SQLITE_OK) return SqliteStatus(c->db_, rc, "open", path);
  sqlite3_busy_timeout(c->db_, 1000);
  // An SQLite may be built with another default, which would lock the application out.
  REPLICA_TRY(c->Exec("PRAGMA locking_mode=NORMAL"));
  REPLICA_TRY(c->Exec("PRAGMA schema_version"));
  rc = sqlite3_prepare_v2(c->db_, "ROLLBACK", -1, &c->rollback_, nullptr);
  if (rc != SQLITE_OK) return SqliteStatus(c->db_, rc, "prepare on", path);
  rc = sqlite3_file_control(c->db_, "main", SQLITE_FCNTL_FILE_POINTER, &c->file_);
  if (rc != SQLITE_OK || c->file_ == nullptr || c->file_->pMethods == nullptr)
    return SqliteStatus(c->db_, rc, "open the file of", path);
  // The path named this file at some moment since it was opened, so its id is that of the open file, which nobody else
  // gets as long as it is open.
  c->file_id_ = FileIdOf(path);
  int moved = 0;
  rc = c->file_->pMethods->xFileControl(c->file_, SQLITE_FCNTL_HAS_MOVED, &moved);
  if (c->file_id_ == FileId{} || (rc == SQLITE_OK && moved != 0))
    return Status(Code::kUnavailable, path + " is being replaced or removed just now");
  // After the first read a WAL connection has the wal-index mapped; asking for it on another one would create it.
  const bool wal = sqlite3_stricmp(PragmaText(c->db_, "main", "journal_mode").c_str(), "wal") == 0;
  if (!wal || c->file_->pMethods->iVersion < 2)
    return Status(Code::kUnsupported, path + " is not in WAL mode: run PRAGMA journal_mode=WAL on it");
  volatile void* region = nullptr;
  rc = c->file_->pMethods->xShmMap(c->file_, 0, kWalIndexRegion, 0, &region);
  if (rc != SQLITE_OK || region == nullptr) return SqliteStatus(c->db_, rc, "map the wal-index of", path);
  c->region0_ = region;
  BindOwnFile(c->file_, c->database_);
  rc = sqlite3_file_control(c->db_, "main", SQLITE_FCNTL_JOURNAL_POINTER, &c->wal_);
  if (rc != SQLITE_OK || c->wal_ == nullptr || c->wal_->pMethods == nullptr)
    return SqliteStatus(c->db_, rc, "open the WAL of", path);
  uint8_t head[100] = {};
  if (c->file_->pMethods->xRead(c->file_, head, sizeof head, 0) == SQLITE_OK) {
    c->page_size_ = uint32_t{head[16]} << 8 | uint32_t{head[17]};
    if (c->page_size_ == 1) c->page_size_ = 65536;
  }
  WalIndexHeader header;
  if (c->Index(&header) && header.max_frame != 0) c->page_size_ = header.page_size();
  if (c->page_size_ == 0) return Status(Code::kUnavailable, path + " is empty: there is nothing to replicate yet");
  return c;
}

int OwnConnection::TryExec(const char* sql) {
  OwnConnectionScope own;
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
}

int OwnConnection::Checkpoint() {
  OwnConnectionScope own;
  return sqlite3_wal_checkpoint_v2(db_, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
}

Status OwnConnection::Exec(const char* sql) {
  const int rc = TryExec(sql);
  if (rc == SQLITE_OK) return Ok();
  return {Code::kIo, database_->path() + ": " + sql + ": " + sqlite3_errmsg(db_)};
}

bool OwnConnection::Index(WalIndexHeader* header) const {
  for (int attempt = 0; attempt < 1000; attempt++)
    if (ReadWalIndexHeader(region0_, header)) return true;
  return false;
}

Result<size_t> OwnConnection::ReadWal(void* out, size_t size, uint64_t offset) const {
  const int rc = wal_->pMethods->xRead(wal_, out, static_cast<int>(size), static_cast<sqlite3_int64>(offset));
  // How much less it was, nobody needs to know.
  if (rc == SQLITE_IOERR_SHORT_READ) return size_t{0};
  if (rc != SQLITE_OK) return SqliteStatus(nullptr, rc, "read", database_->wal_path());
  return size;
}

Status OwnConnection::ReadFrameHeader(uint32_t frame, FrameHeader* header) const {
  uint8_t bytes[kFrameHeaderSize];
  REPLICA_ASSIGN(size_t n, ReadWal(bytes, sizeof bytes, FrameOffset(frame, page_size_)));
  if (n != sizeof bytes) return {Code::kNotFound, "the WAL is shorter"};
  *header = ParseFrameHeader(bytes);
  return Ok();
}

bool OwnConnection::ReadFramePage(uint32_t frame, uint8_t* out) const {
  auto n = ReadWal(out, page_size_, FrameOffset(frame, page_size_) + kFrameHeaderSize);
  return n.ok() && *n == page_size_;
}

Status OwnConnection::ReadFilePage(uint32_t page, uint8_t* out) const {
  const int rc = file_->pMethods->xRead(file_, out, static_cast<int>(page_size_), int64_t{page - 1} * page_size_);
  // A short read is filled with zeros (sqlite3_io_methods): a page beyond the file's end reads as zeros.
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ)
    return SqliteStatus(nullptr, rc, "read page " + std::to_string(page) + " of", database_->path());
  return Ok();
}

Result<uint32_t> OwnConnection::FilePages() const {
  uint8_t head[100] = {};
  const int rc = file_->pMethods->xRead(file_, head, sizeof head, 0);
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ)
    return SqliteStatus(nullptr, rc, "read the header of", database_->path());
  const uint32_t pages = LoadBig32(head + 28);
  // https://sqlite.org/fileformat2.html 1.3.7: the in-header size counts only when both counters agree.
  if (LoadBig32(head + 24) == LoadBig32(head + 92) && pages != 0) return uint32_t{pages};
  sqlite3_int64 size = 0;
  file_->pMethods->xFileSize(file_, &size);
  return static_cast<uint32_t>(size / page_size_);
}

Status OwnConnection::BeginRead(ReadState* state) {
  REPLICA_TRY(Exec("BEGIN"));
  Status status = Exec("PRAGMA schema_version");
  const int mark = HeldReadMark(file_);
  if (status.ok() && mark < 0)
    status = Status(Code::kInternal, database_->path() + ": a read transaction without a read mark");
  *state = {};
  state->mark = mark;
  for (int attempt = 0; status.ok(); attempt++) {
    WalIndexHeader before;
    WalIndexHeader after;
    if (attempt == 1000) {
      status = Status(Code::kUnavailable, database_->path() + ": the wal-index does not settle");
      break;
    }
    if (!Index(&before)) continue;
    const uint32_t backfilled = Info()->backfilled;
    const uint32_t marked = Info()->read_mark[mark];
    std::atomic_thread_fence(std::memory_order_acquire);
    if (!Index(&after) || before.wal_salts() != after.wal_salts()) continue;
    // Marks 1…4 keep this WAL from being restarted and cannot be moved while held: the state is the commit at the mark.
    // Mark 0 keeps the database file from being written: the state is the file, which is all that was backfilled. A
    // restart may be under way then: between its two stores nBackfill is still that of the old WAL.
    const uint32_t frame = mark > 0 ? marked : backfilled;
    if (frame > before.max_frame) continue;
    state->position.salts = before.wal_salts();
    state->position.frame = frame;
    state->empty_wal = before.max_frame == 0;
    // It cannot have ended there and another one begun before this is noted.
    if (frame == before.max_frame) SeeEnd(before);
    if (frame == 0) break;
    FrameHeader h;
    if (!ReadFrameHeader(frame, &h).ok() || !BelongsTo(h, state->position.salts) || !h.commit()) continue;
    state->position.checksum[0] = h.checksum[0];
    state->position.checksum[1] = h.checksum[1];
    state->pages = h.pages_after;
    break;
  }
  if (!status.ok()) EndRead();
  return status;
}

void OwnConnection::EndRead() {
  OwnConnectionScope own;
  if (sqlite3_get_autocommit(db_) != 0) return;
  (void)sqlite3_step(rollback_);
  (void)sqlite3_reset(rollback_);
}

}  // namespace replica

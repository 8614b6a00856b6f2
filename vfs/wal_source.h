// The leader's own view of a database: a real SQLite connection, plus reads of its WAL by position.
//
// Opened and used by the leader's thread only. Its connection takes a read mark only during a view; with `guard` one is
// held all the time (vfs/restart_guard.h).
#ifndef LIBREPLICA_VFS_WAL_SOURCE_H_
#define LIBREPLICA_VFS_WAL_SOURCE_H_

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "uploader/source.h"
#include "vfs/database.h"
#include "vfs/database_view.h"
#include "vfs/own_connection.h"
#include "vfs/restart_guard.h"

namespace replica {

class WalSource : public Source {
 public:
  // Opens the connection. kUnsupported when the database is not in WAL mode. `guard`: no process may restart the WAL
  // past what is captured.
  static Result<std::unique_ptr<WalSource>> Open(const std::shared_ptr<Database>& database, bool guard);
  WalSource(const WalSource&) = delete;
  WalSource& operator=(const WalSource&) = delete;

  void SetPosition(const WalPosition& position) override;
  const WalPosition& position() const override { return position_; }
  Result<bool> Reachable(const FileStamp& stamp) override;
  Result<bool> InLiveWal() override;
  FileId file() const override { return connection_->file_id(); }
  bool Replaced() const override { return FileIdOf(database_->path()) != connection_->file_id(); }
  bool FolderGone() const override { return database_->Stale(); }
  void Observe() override;
  uint64_t Backlog() override;
  Result<Batch> Collect(uint64_t memory_budget, const WalPosition* until) override;
  Status Relieve() override;
  void Release(const Batch& batch) override;
  Status ResetJournal(bool drop) override;
  void LetGo() override;
  bool ReadBase(uint32_t page, uint64_t hash, uint8_t* out) override;
  bool ReadNewest(uint32_t page, uint64_t hash, uint8_t* out) override;
  Status ReadCurrent(uint32_t page, uint8_t* out) override;
  Status BeginView() override;
  void EndView() override;
  bool AtView() const override;
  void SetPositionToView() override;
  const WalPosition& view_position() const override { return view_position_; }
  uint32_t view_pages() const override { return view_.pages(); }
  uint32_t page_size() const override { return page_size_; }
  Status ReadView(uint32_t page, uint8_t* out) override { return view_.Read(page, out); }

  // Frames the WAL may hold beyond the journal before Relieve copies them.
  static constexpr uint32_t kRelieveFrames = 256;

 private:
  // Frames read but not yet closed by a commit, and what belongs to the batch as a whole.
  struct Reading;

  WalSource(std::shared_ptr<Database> database, std::unique_ptr<OwnConnection> connection);
  void LookAtTimes(Reading* reading);
  Status ReadJournals(Reading* reading);
  Status ReadJournal(const std::string& path, Reading* reading, bool* whole);
  // kUnavailable: the WAL was restarted meanwhile, look again.
  Status ReadLive(const WalIndexHeader& header, Reading* reading);
  Status AddFrame(const FrameHeader& header, Batch::Frame frame, Reading* reading);
  // The live WAL and the chain as they are now, once every reason to judge is met.
  Result<WalChain> Look(WalIndexHeader* header);
  // Reachable, where the live WAL is another one than the position's.
  Result<bool> ReachableByChain(const WalIndexHeader& header, const WalChain& chain, const FileStamp& stamp);
  // True when the frame at the position is what was captured. `header`: of the WAL that the position is in.
  bool HasFrame(const WalIndexHeader& header) const;
  // True when what comes after the position is in the live WAL or the journal, by the chain.
  Result<bool> LeadsTo(const WalIndexHeader& header, const WalChain& chain);
  // Goes on in that WAL, which the reading is in or which comes next; false when neither is proven.
  bool Enter(const WalSalts& salts, uint64_t chain, uint32_t ordinal, uint32_t previous_end, Reading* reading);
  // Reads the wal-index; false when a process that was killed has left it torn and it cannot be mended now.
  bool ReadIndex(WalIndexHeader* header);
  uint32_t NotDurable() const;  // committed frames that only the WAL holds
  Status Lost(const std::string& why) const;

  const std::shared_ptr<Database> database_;
  const std::unique_ptr<OwnConnection> connection_;
  std::unique_ptr<RestartGuard> guard_;  // null without the option
  uint64_t relieved_ = 0;                // packed: the end of the WAL at the last Relieve with a guard
  const uint32_t page_size_;
  // Ends of the WAL as Observe has seen them since capture last came to the end: packed position → wall clock,
  // microseconds. Full, it takes no more: later commits then have the time of the one before them.
  std::map<uint64_t, int64_t> observed_;
  static constexpr size_t kMaxObserved = 100000;
  bool renewed_ = false;      // the last Collect began with a read transaction of the guard's
  bool reached_end_ = false;  // the last Collect read all that was committed when it began

  WalPosition position_;
  bool lost_ = false;           // the WAL contradicts it: a new position is needed
  bool verify_journal_ = true;  // until the first Collect: journals of an earlier leader are not trusted
  // Last frame of each page in the WAL of position_, up to the position before the last Collect; and of the last
  // Collect.
  std::unordered_map<uint32_t, uint32_t> base_frames_;
  std::unordered_map<uint32_t, uint32_t> new_frames_;
  WalSalts new_frames_salts_{};  // the WAL that both are of
  DatabaseView view_;
  WalPosition view_position_;
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_WAL_SOURCE_H_

// The leader's own view of a database: a real SQLite connection, plus reads of its WAL by position.
//
// Opened and used by the leader's thread only. Its connection takes a read mark only during a view; with `guard` one is
// held all the time (vfs/restart_guard.h).
#ifndef LIBREPLICA_VFS_WAL_SOURCE_H_
#define LIBREPLICA_VFS_WAL_SOURCE_H_

#include <map>
#include <memory>
#include <optional>
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

  void SetClosedGate(uint64_t gate) override { closed_gate_ = gate; }
  void SetPosition(const WalPosition& position, const WalAnchor& anchor) override;
  // SQLite counts from 0 in each life of the wal-index, and no WAL has ended yet.
  WalAnchor FirstAnchor() const override { return {life_, 0, 0}; }
  bool NothingCommitted() const override;
  Result<bool> Reachable() override;
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
  const WalPosition& view_position() const override { return view_.state().position; }
  WalAnchor view_anchor() const override { return view_anchor_; }
  uint32_t view_pages() const override { return view_.pages(); }
  uint32_t page_size() const override { return page_size_; }
  Status ReadView(uint32_t page, uint8_t* out) override { return view_.Read(page, out); }

  // Frames the WAL may hold beyond the journal before Relieve copies them.
  static constexpr uint32_t kRelieveFrames = 256;

 private:
  // Frames read but not yet closed by a commit, and what belongs to the batch as a whole.
  struct Reading;

  WalSource(std::shared_ptr<Database> database, std::unique_ptr<OwnConnection> connection);
  Status ReadJournals(Reading* reading);
  Status ReadJournal(const std::string& path, Reading* reading, bool* whole);
  // kUnavailable: the WAL was restarted meanwhile, look again.
  Status ReadLive(const WalIndexHeader& header, Reading* reading);
  Status AddFrame(const FrameHeader& header, Batch::Frame frame, Reading* reading);
  bool EnterWal(const WalSalts& salts, const Database::WalBegin& begin, bool live, Reading* reading);
  // Why a WAL comes next after another.
  struct Succession {
    bool proven = false;
    std::optional<uint32_t> start;  // SQLite's count of commits where it began; empty: not needed for the proof
    uint32_t frame = 0;             // where to compare the count: at this commit, with `changes`; 0: at the WAL's end,
    uint32_t changes = 0;           // with the wal-index's
  };
  // `live`: it is the WAL that is there now, not one that a journal remembers.
  Succession LeadsOn(const WalPosition& at, const WalSalts& salts, const Database::WalBegin& begin, bool live) const;
  // Reads the wal-index; false when a process that was killed has left it torn and it cannot be mended now.
  bool ReadIndex(WalIndexHeader* header);
  uint32_t NotDurable() const;  // committed frames that only the WAL holds
  Status CheckChanges(uint32_t changes);
  Status Lost(const std::string& why) const;
  Status CheckUnfinished(const Reading& reading);

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
  // Holds as long as capture stands at the position it was set with; none otherwise.
  WalAnchor anchor_;
  bool verify_journal_ = true;  // until the first Collect: journals of an earlier leader are not trusted
  // Last frame of each page in the WAL of position_, up to the position before the last Collect; and of the last
  // Collect.
  std::unordered_map<uint32_t, uint32_t> base_frames_;
  std::unordered_map<uint32_t, uint32_t> new_frames_;
  WalSalts new_frames_salts_{};  // the WAL that both are of
  // Commits since the WAL of position_ began, against SQLite's own count: proof that no foreign commit was lost at the
  // restart. Checked once a WAL.
  uint64_t closed_gate_ = 0;
  const uint64_t life_;  // Database::Life, the same for as long as the connection is open
  bool lost_ = false;    // the check failed: a new position is needed
  bool check_changes_ = false;
  uint32_t start_changes_ = 0;
  uint32_t check_frame_ = 0;  // Succession::frame and changes
  uint32_t check_count_ = 0;
  uint64_t commits_seen_ = 0;   // padding and empty repeats not counted
  uint64_t commit_frames_ = 0;  // all frames marked as commits

  DatabaseView view_;
  WalAnchor view_anchor_;
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_WAL_SOURCE_H_

// The leader's work for one database: capture commits into segments, send them, keep snapshots, heal gaps.
//
// Run is the leader's thread; it sleeps on the control block's wake word and never waits for the network while
// capturing (the first contact with an unknown replica, a rebuild of lost page hashes and the look at a rival's object
// do wait; the journal keeps commits meanwhile). PUTs run on the store's thread and report through a mailbox.
// docs/architecture.md.
#ifndef LIBREPLICA_UPLOADER_ENGINE_H_
#define LIBREPLICA_UPLOADER_ENGINE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/control_block.h"
#include "base/status.h"
#include "base/thread_annotations.h"
#include "uploader/claim.h"
#include "uploader/comparison.h"
#include "uploader/encoder.h"
#include "uploader/leader_events.h"
#include "uploader/lineage.h"
#include "uploader/page_table.h"
#include "uploader/replica.h"
#include "uploader/snapshot.h"
#include "uploader/source.h"
#include "uploader/state.h"
#include "uploader/store.h"

namespace replica {

struct EngineOptions {
  int64_t sync_interval = 1000000;  // µs between starts of PUTs; 0: as fast as the store answers
  uint64_t spool_limit = 0;         // bytes; 0: the database's size, at least 256 MiB
  int64_t snapshot_interval = int64_t{24} * 3600 * 1000000;  // µs
  int64_t watch_interval = 5000000;  // µs between looks for commits of processes without libreplica
  bool takeover = false;             // continue a history that this folder does not know or that another writer holds
  bool fencing = true;               // false: accept a store without conditional PUT
  EncodeOptions encode;
};

class Engine {
 public:
  struct Place {
    std::string database;                          // path of the database file
    std::string folder;                            // its replica folder
    uint32_t handover = 0;                         // ControlBlock::handover when the leadership came
    bool yields = false;                           // to a dedicated uploader that raises ControlBlock::handover
    std::function<void(const std::string&)> tell;  // of an error that needs a person, once; may be empty
  };

  // `source` and `control` outlive the engine; `keep_alive` keeps `control` mapped for PUTs that end after it.
  Engine(Source* source, std::shared_ptr<Store> store, ControlBlock* control, std::shared_ptr<void> keep_alive,
         Place place, EngineOptions options, const Clock& clock);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Returns after Stop, once all that was committed before it is acknowledged or the time is up; or, when it yields,
  // soon after another process asked for the leadership: then true.
  bool Run();
  // Any thread, any number of times: from now on Run has `flush_micros` to come to its end. What other processes commit
  // after it is left to the next leader.
  void Stop(int64_t flush_micros);

  // After Run, and after the source's connection was closed: the file has this stamp, holds all up to `end`, and there
  // is no WAL. If that is just what was captured, the next start needs no scan, even without the control block.
  void StampCleanClose(const WalPosition& end, const FileStamp& stamp);

 private:
  struct Mailbox;
  // A segment in the spool.
  struct Pending {
    EncodedSegment encoded;
    int64_t first_commit = 0;  // time of its first commit
  };

  // --- attach: decide by proof where capture begins (engine_attach.cc)
  Status Attach();
  Status AttachLocal();
  // What this folder's state proves about a history; as Attach has loaded it.
  struct Known {
    bool any = false;          // a state was found, whole
    bool same_url = false;     // it is of this URL
    bool same_folder = false;  // and was written in this folder
    bool table_valid = false;  // its page hashes add up
  };
  Status AttachReplica(const Known& known);
  // `newest`: the newest generation at the URL.
  Status AdoptHead(const Id& generation, const Id& newest, const ReplicaHead& head, const Known& known);
  Result<Lineage> LineageOf(const Id& generation, const ReplicaHead& head, const Known& known, PageTable* scanned);
  // True when the newest snapshot is damaged, and an older one has served.
  Result<bool> RebuildTable(const Id& generation, const ReplicaHead& head);
  Result<Claim> ReadClaim();
  // Claims a URL at which nothing is restorable.
  Status ClaimUrl();
  std::string ClaimText() const;
  // Ends the log of a generation that another one takes the place of. kUnavailable: somebody has appended meanwhile.
  Status EndGeneration(const Id& generation, const ReplicaHead& head);
  // `newest`: the newest generation at the URL, all zero when there is none.
  Status NewGeneration(const Id& newest);
  // Another writer has the history: stops uploading, now and after the next start. `who` is for people.
  void Fence(const std::string& who);
  Status ProbeFencing(const Id& generation);
  Status LoadSpool();
  Status ClearSpool();
  void Activate();
  uint64_t SpoolLimit() const;

  // --- comparing: the whole database is read (engine_compare.cc)
  // A short view; from its state on, gates and journal keep every commit.
  Status BeginScan(const std::function<void()>& begin);
  // The hashes of all pages at the source's position, which is where capture may go on. Nothing is sent meanwhile.
  Result<PageTable> ScanAll();
  // A step of finding the difference to what the replica is known to hold, once commits were lost.
  Status Resync();
  Status EndResync();
  void ContinueResync();
  // A step of reading the database back in full: the independent half of a verify.
  Status Mark();
  Status EndMark(bool same_size);

  // --- streaming
  Status Stream();
  // Captures all commits, or those up to `until`; between hashing and compressing it calls `between` (may be empty).
  Status Capture(const WalPosition* until, const std::function<Status()>& between = {});
  Status SnapshotStep();
  Status FreezeSnapshot();
  Status WithView(const std::function<Status()>& body);
  // Captures up to a read view and calls `body` while the table is the view's state. What it says counts only once the
  // batch is safe.
  Status CaptureInView(const std::function<Status(const WalPosition& view)>& body);
  bool SnapshotDue() const;
  Status NotAtView() const;
  // Snapshots and verifies, a slice each. That readers stand in their way delays them, and no commit.
  Status ViewWork();
  void LoseTrack(const std::string& why);
  void DropSpool(const std::string& why);
  void CheckBound();

  // --- sending
  void Send();
  void TakeMail();
  void LogDone(const Status& status);
  void SnapshotDone(const Status& status);
  // What the object that stands where ours should go means.
  enum class Rival { kSame, kOwnPast, kOther };
  Result<Rival> LookAtRival();
  // True when the file at the database's path is another one than the one that is captured; then Run ends.
  bool Replaced();
  bool SnapshotReady() const;
  Result<bool> SameSnapshotStored();
  bool TooLarge(Status* status);
  static constexpr int64_t kReadAgain = 10000;  // µs before another try of what could not be read
  static constexpr int64_t kSnapshotPause = int64_t{3600} * 1000000;     // µs
  static constexpr int64_t kFirstSnapshotPause = int64_t{10} * 1000000;  // nothing is restorable without it
  void Look();
  void LookDone(const Status& status);
  void PlanLook(int64_t micros);
  void Acknowledge();
  // `of_endpoint`: the endpoint failed, whose own delay is the one that counts.
  void Backoff(const Status& status, bool of_endpoint, int* attempts, int64_t* retry_at);
  // True when a request may begin now. Otherwise the state tells that the endpoint is down.
  bool MaySend();
  // True while the store takes nothing of this database, or of any.
  bool Delayed() const { return attempts_ > 0 || store_->endpoint()->down(); }

  void Sleep();
  int64_t AttachAt() const;  // steady µs: when the next try to attach is due
  bool YieldsNow();
  bool Drained() const;
  void SetError(const Status& status);
  void ClearError();
  void SetState();
  void PublishPosition();
  Status Save(const std::vector<uint32_t>& changed);
  SegmentHeader Header() const;
  std::string SpoolPath(uint64_t sequence) const;
  bool Stopping() const { return stop_at_.load() != 0; }

  Source* const source_;
  const std::shared_ptr<Store> store_;
  ControlBlock* const control_;
  const Place place_;
  const EngineOptions options_;
  const Clock& clock_;
  LeaderEvents events_;  // Run's thread only
  StateFile state_file_;
  const std::shared_ptr<Mailbox> mailbox_;
  const Endpoint::Waiter waiter_;
  std::atomic<int64_t> stop_at_{0};       // steady µs; 0: not stopping
  std::atomic<uint64_t> stop_ticket_{0};  // the request (sync_wanted) that Stop made; written before stop_at_

  // All below: Run's thread only.
  EngineState state_;
  PageTable table_;
  uint64_t attach_ = 0;  // attempts to attach: PUTs of an earlier one do not count
  bool attached_ = false;
  bool fenced_ = false;
  bool replaced_ = false;  // Replaced has been true: nothing of this file is captured or acknowledged any more
  bool needs_resync_ = false;
  std::string resync_reason_;
  std::deque<Pending> queue_;  // log segments captured and not acknowledged, in order
  bool log_in_flight_ = false;
  std::unique_ptr<Comparison> comparison_;    // while it needs a resync
  uint64_t resync_pages_ = 0;                 // that its differences had so far …
  uint64_t resync_txid_ = 0;                  // … and the TXID of the first one
  std::unique_ptr<PageScan> scan_;            // of a verify that is being made
  int scan_rounds_ = 0;                       // times that the pages which differ were read
  uint32_t mark_ticket_ = 0;                  // verifies that it answers
  std::unique_ptr<SnapshotBuilder> builder_;  // a snapshot that is being made
  std::optional<EncodedSegment> snapshot_;    // made and not acknowledged
  bool snapshot_in_flight_ = false;
  uint64_t snapshot_log_bytes_ = 0;   // log_bytes when it was made
  uint64_t snapshot_taken_txid_ = 0;  // the store holds another object where this TXID's snapshot would go
  uint32_t snapshot_ticket_ = 0;      // requests that it answers
  uint64_t captured_ticket_ = 0;      // sync requests whose commits are captured
  bool capture_due_ = true;  // since the attach or a resync nothing was captured to the end: counts are not known
  int64_t next_turn_ = 0;    // steady µs: the next PUT may start
  int64_t retry_at_ = 0;
  int64_t snapshot_retry_at_ = 0;
  int64_t log_put_at_ = 0;          // steady µs: when the PUT under way began
  int64_t snapshot_put_at_ = 0;     // the same of a snapshot's
  uint64_t log_failures_ = 0;       // the endpoint's failures when the PUT under way began
  uint64_t snapshot_failures_ = 0;  // the same of a snapshot's
  int64_t snapshot_begun_ = 0;      // steady µs: when the snapshot was begun
  int64_t look_at_ = 0;             // steady µs: when to see next whether the replica is still there
  bool looking_ = false;
  uint64_t looked_txid_ = 0;  // the snapshot that is looked for
  int look_failures_ = 0;     // in a row
  bool look_failed_ = false;  // last_error is what a look has met
  uint32_t handover_seen_ = 0;
  int64_t yield_by_ = 0;  // steady µs; 0: nobody asked
  int64_t attempt_at_ = 0;
  bool attach_waits_ = false;  // for the endpoint: the last try to attach failed there
  int64_t view_retry_at_ =
      0;  // steady µs: what needs a view of the newest state (a snapshot, a verify) rests until then
  int view_attempts_ = 0;
  int attempts_ = 0;
  int too_large_ = 0;                // times in a row that the store found the segment in front too large
  int64_t snapshot_not_before_ = 0;  // steady µs: one that was too large is not made again until then
  int snapshot_attempts_ = 0;
  int attach_attempts_ = 0;
  int capture_attempts_ = 0;
  Status error_;
  bool inherited_error_ = false;  // an earlier leader has left one
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_ENGINE_H_

// Rebuilds a database from its replica, to the newest commit, to a TXID or to a moment.
//
// A restore never returns less than was asked for: a hole in the log, a damaged object or a target outside the history
// is an error that names the object, and leaves nothing behind. Everything read is treated as hostile: it cannot make
// the restore write outside its file, nor take memory that the object's own size does not justify.
#ifndef LIBREPLICA_UPLOADER_RESTORE_H_
#define LIBREPLICA_UPLOADER_RESTORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/page_table.h"
#include "uploader/segment.h"
#include "uploader/store.h"

namespace replica {

struct RestoreTarget {
  std::optional<uint64_t> txid;  // this commit
  // Wall clock microseconds: the state before the first commit that is later (from the newest snapshot at or before
  // it). Where the clock was set back between commits, that is not the last commit at or before it:
  // History::clock_steps.
  std::optional<int64_t> time;
  std::optional<Id> generation;  // default: the newest (for a time: the newest that had begun by then)

  bool latest() const { return !txid && !time; }
};

// "latest", a TXID in decimal, or a time as base/clock.h's ParseTime reads it; each may have "<generation>/" in front.
Result<RestoreTarget> ParseTarget(const std::string& text);

struct RestoredDatabase {
  Id database{};
  Id generation{};
  uint64_t txid = 0;
  uint64_t sequence = 0;  // of the last log segment that was used; 0: none
  int64_t time = 0;       // of the commit
  uint32_t page_size = 0;
  uint64_t checksum = 0;
  PageTable table;
  uint64_t objects = 0;  // read
  std::string warning;   // of a damaged snapshot that an older one and the log took the place of; empty: none
};

// Called now and then: bytes of objects applied so far, bytes planned (of all that may be needed; the target can come
// before). False calls the restore off: kInterrupted. May be empty.
using RestoreProgress = std::function<bool(uint64_t done, uint64_t planned)>;

// What a restore would do.
struct RestorePlan {
  Id generation{};
  uint64_t snapshot_txid = 0;  // it begins with
  uint64_t txid = 0;           // it ends at
  int64_t time = 0;            // of that commit
  uint32_t page_size = 0;
  uint32_t pages = 0;
  uint64_t objects = 0;  // that are read
  uint64_t bytes = 0;
  std::string warning;  // as RestoredDatabase::warning
};

// Finds what the target means and checks that the log up to there is without a hole, without reading the pages. Errors
// as TemporaryCopy::Restore's.
Result<RestorePlan> PlanRestore(Store* store, const RestoreTarget& target);

// A file that holds a copy of the database for a while. It is locked as long as this object, or its process, lives:
// those of processes that were killed are removed by the next one, or by RemoveAbandoned. One thread at a time.
class TemporaryCopy {
 public:
  // In a replica folder: <folder>/copy-<16 hexadecimal digits>.
  static Result<TemporaryCopy> In(const std::string& folder);
  // Of what is to become `path`: <path>.restore-<16 hexadecimal digits>.
  static Result<TemporaryCopy> Beside(const std::string& path);
  // Removes copies in a replica folder that nobody works with. Any thread, any process.
  static void RemoveAbandoned(const std::string& folder);
  TemporaryCopy(TemporaryCopy&& other) noexcept;
  TemporaryCopy& operator=(TemporaryCopy&&) = delete;
  ~TemporaryCopy();  // removes it

  const std::string& path() const { return path_; }
  // Writes the database into this file, which is empty; proves it by reading it back; fsyncs.
  Result<RestoredDatabase> Restore(Store* store, const RestoreTarget& target, const RestoreProgress& progress);
  // Gives the file that name, which must be free. From then on the lock is gone, whatever comes of it.
  Status MoveTo(const std::string& path);

 private:
  static Result<TemporaryCopy> Create(const std::string& prefix);
  static void RemoveAbandonedOf(const std::string& prefix);
  TemporaryCopy(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  UniqueFd fd_;  // holds the lock
};

// Restores under a temporary name in the folder of `path`, then moves it there; refuses when `path` or a WAL or
// journal beside it exists. Leaves <path>-replica/state, so that the history goes on where it ended. Of several that
// restore to one path at the same time, one does it and the others wait, and find that it exists (kExists).
Result<RestoredDatabase> RestoreDatabase(Store* store, const RestoreTarget& target, const std::string& path,
                                         const RestoreProgress& progress);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_RESTORE_H_

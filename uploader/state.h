// What a leader must know after a restart: <database>-replica/state, with a small redo file beside it.
//
// A save writes the redo file (new header and the page hashes that changed, as one atomic replacement), then changes
// the state file in place. A crash of the process leaves either the old state or one that the redo completes.
//
// Only SaveAll is fsynced: it marks the moments at which the folder becomes the owner of a history. After a power loss
// one of the two files may be torn and both may be older than the replica. The newer one that passes its checksum
// counts; the database checksum tells whether the page hashes are right (if not, they are read from the replica); and
// nothing that the state says about a WAL or a file stamp is proof any more (EngineState::boot).
//
// Used by the leader's thread only, which holds the leadership lock.
#ifndef LIBREPLICA_UPLOADER_STATE_H_
#define LIBREPLICA_UPLOADER_STATE_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "uploader/page_table.h"
#include "uploader/segment.h"

namespace replica {

// Which file a path names: another one in its place has another id, as long as somebody has the first one open.
struct FileId {
  uint64_t device = 0;
  uint64_t inode = 0;

  bool operator==(const FileId&) const = default;
};
// One that no file has.
constexpr FileId kNoFile{UINT64_MAX, UINT64_MAX};
// All zero when it is not there.
FileId FileIdOf(const std::string& path);

// A file as stat(2) sees it; tells whether anybody has written to the database since a clean close.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified = 0;  // nanoseconds
  int64_t changed = 0;   // nanoseconds

  bool operator==(const FileStamp&) const = default;
};
// Of a file; all zero when it is not there.
FileStamp StampOf(const std::string& path);
// 0 for one that is all zero.
uint64_t HashOf(const FileStamp& stamp);

struct EngineState {
  uint64_t revision = 0;
  Id database{};
  Id generation{};
  uint64_t writer = 0;
  uint64_t folder_identity = 0;  // of the folder the state was written in: a copied folder is another writer
  uint64_t boot = 0;             // BootHash when it was saved: `wal` and `stamp` prove something within one boot only
  FileId file;  // of the database file that txid is a state of; all zero: not known (an older version's state)
  uint32_t page_size = 0;
  uint32_t pages = 0;
  uint64_t txid = 0;      // last captured
  uint64_t sequence = 0;  // last captured log segment
  uint64_t checksum = 0;  // of the database at txid
  int64_t time = 0;       // wall clock, microseconds: of the commit that txid is; 0: not known
  WalPosition wal;        // where in a WAL txid ends, or which one ended there
  uint64_t acknowledged_txid = 0;
  uint64_t acknowledged_sequence = 0;
  uint64_t snapshot_txid = 0;   // of the last acknowledged snapshot; 0: none yet
  uint64_t snapshot_bytes = 0;  // stored
  int64_t snapshot_time = 0;
  uint64_t log_bytes = 0;  // stored bytes of log segments acknowledged since that snapshot
  bool partial = false;    // some page hashes are unknown: only a resync may follow
  bool restored = false;   // made by a restore: the replica may be ahead
  bool fenced = false;     // another writer has appended
  bool behind = false;     // the replica holds log segments of ours that this state does not know (a power loss)
  bool claim_due = false;  // the claim at the URL names another folder; it is replaced once a segment is acknowledged
  bool unread = false;     // the machine was started since, and the whole file was not read yet: nothing is sent before
  FileStamp stamp;         // of the database file when it held just txid, and there was no WAL; all zero: not known
  std::string url;         // without secrets
};

// The unit, in nanoseconds, that the file system keeps times in, as far as one stamp tells.
int64_t TimeUnit(const FileStamp& stamp);

class StateFile {
 public:
  explicit StateFile(std::string folder);

  // What is there; nothing when there is no state or it does not check. `table` gets the page hashes; it is empty, and
  // *table_valid false, when they do not add up to the checksum. For the leader alone: what a crash kept from being
  // written back is written back.
  Result<std::optional<EngineState>> Load(PageTable* table, bool* table_valid);
  // The state alone, without the page hashes.
  std::optional<EngineState> LoadHeader() const;
  // Saves the header and the hashes of `changed` pages; raises state->revision.
  Status Save(EngineState* state, const PageTable& table, const std::vector<uint32_t>& changed);
  // Saves everything anew.
  Status SaveAll(EngineState* state, const PageTable& table);

  // Identifies the folder: its inode and birth time, which a copy has others of, whatever path or container it is seen
  // through. Where the file system has no birth times: machine, device and inode.
  uint64_t FolderIdentity() const;
  // True when `identity` names this folder, also as versions before 0.2 computed it (machine, device, inode).
  bool IsFolder(uint64_t identity) const;

 private:
  const std::string folder_;
  const std::string path_;
  const std::string redo_path_;
};

Id RandomId();
// Sorts behind `newest` (all zero: none) whatever the clock says; otherwise by time. kConflict when there is no such
// id.
Result<Id> NewGenerationId(int64_t wall_micros, const Id& newest);
uint64_t RandomNumber();

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_STATE_H_

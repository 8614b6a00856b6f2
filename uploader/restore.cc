#include "uploader/restore.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>

#include "base/byte_lock.h"
#include "base/clock.h"
#include "base/fs.h"
#include "uploader/replica.h"
#include "uploader/state.h"

namespace replica {
namespace {

constexpr char kCopyPrefix[] = "/copy-";        // and 16 hexadecimal digits
constexpr char kRestorePrefix[] = ".restore-";  // the same
constexpr size_t kPrefetch = 8;                 // log objects fetched at the same time
constexpr uint64_t kProgressVersions = 1024;    // page versions between two calls of the progress

// Where a restore begins: a snapshot, and the log objects behind it.
struct Plan {
  Id generation{};
  SnapshotObject snapshot;
  std::vector<LogObject> log;
};

class Restorer {
 public:
  Restorer(Store* store, const RestoreTarget& target, std::string path, int fd, const RestoreProgress& progress)
      : store_(store), target_(target), path_(std::move(path)), fd_(fd), progress_(progress) {}

  Result<RestoredDatabase> Run() {
    REPLICA_TRY(Begin());
    REPLICA_TRY(ApplyLog());
    REPLICA_TRY(Prove());
    out_.checksum = out_.table.checksum();
    out_.warning = damaged_;
    return std::move(out_);
  }

  // What Run would do, without the pages.
  Result<RestorePlan> Outline() {
    REPLICA_TRY(Choose());
    RestorePlan plan;
    plan.generation = plan_.generation;
    plan.snapshot_txid = plan.txid = plan_.snapshot.txid;
    plan.bytes = plan_.snapshot.size;
    plan.objects = 1;
    const Segment& snapshot = snapshot_reader_->segment();
    plan.page_size = snapshot.header.page_size;
    auto take = [&plan](const CommitEntry& commit) {
      plan.time = commit.time;
      plan.pages = commit.pages;
    };
    take(snapshot.commits.back());
    // The log objects that begin at or before the target; all but the last of them are applied whole. (A clock that
    // was set back between commits may make a restore to a time stop earlier than this finds.)
    const auto& log = plan_.log;
    size_t reach = log.size();
    for (size_t low = 0; low < reach && !target_.latest();) {
      const size_t middle = low + (reach - low) / 2;
      REPLICA_ASSIGN(Segment segment, OpenLog(log[middle]));
      const bool begins =
          target_.txid ? segment.header.min_txid <= *target_.txid : segment.commits.front().time <= *target_.time;
      if (begins) {
        low = middle + 1;
      } else {
        reach = middle;
      }
    }
    if (target_.txid && *target_.txid == plan.txid) reach = 0;
    for (size_t i = 0; i < reach; i++) {
      const uint64_t expected = snapshot.header.sequence + 1 + i;
      if (log[i].sequence != expected) return Hole(expected);
      plan.bytes += log[i].size;
      plan.objects++;
    }
    bool ends = true;  // where the log does
    if (reach > 0) {
      const LogObject& last = log[reach - 1];
      const std::string name = ObjectUrl(*store_, LogKey(plan_.generation, last.sequence));
      REPLICA_ASSIGN(Segment segment, OpenLog(last));
      REPLICA_ASSIGN(plan.txid, Cut(segment, name));
      // It was read before; a store that answers differently now is not to be believed.
      if (plan.txid < segment.header.min_txid) return Foreign(name, "it changed while it was read");
      take(CommitAt(segment, plan.txid));
      ends = plan.txid == segment.trailer.max_txid;
    }
    if (target_.txid && plan.txid != *target_.txid) return NotReached(plan.txid);
    if (!target_.txid && reach == log.size() && ends && plan.txid < passed_over_) return EndsBefore();
    plan.warning = damaged_;
    return plan;
  }

 private:
  Status Missing(const std::string& what) const { return {Code::kNotFound, store_->url() + ": " + what}; }

  Status Hole(uint64_t sequence) const {
    return {Code::kCorrupt, ObjectUrl(*store_, LogKey(plan_.generation, sequence)) + " is missing: the log has a hole"};
  }
  Status NotReached(uint64_t end) const {
    return Missing("TXID " + std::to_string(*target_.txid) + " is not in the history: it ends at TXID " +
                   std::to_string(end));
  }

  Result<Segment> OpenLog(const LogObject& object) {
    StoreBytes bytes(store_, LogKey(plan_.generation, object.sequence), object.size);
    REPLICA_ASSIGN(auto reader, SegmentReader::Open(&bytes));
    const SegmentHeader& h = reader->segment().header;
    if (h.kind != SegmentKind::kLog || h.sequence != object.sequence || h.generation != plan_.generation)
      return Foreign(bytes.name(), "it is not the log segment that its name says");
    return reader->segment();
  }

  static const CommitEntry& CommitAt(const Segment& s, uint64_t txid) {
    return s.folded() ? s.commits.back() : s.commits[txid - s.header.min_txid];
  }

  // The last TXID of a log segment that the target wants; the one before the segment when it wants none of it.
  Result<uint64_t> Cut(const Segment& s, const std::string& name) const {
    const uint64_t before = s.header.min_txid - 1;
    if (target_.txid && *target_.txid < s.trailer.max_txid) {
      if (s.folded())
        return Missing("TXID " + std::to_string(*target_.txid) + " is not restorable: " + name + " holds TXIDs " +
                       std::to_string(s.header.min_txid) + " to " + std::to_string(s.trailer.max_txid) +
                       " folded into one. Restorable are " + std::to_string(before) + " and " +
                       std::to_string(s.trailer.max_txid));
      return *target_.txid;
    }
    if (!target_.time) return s.trailer.max_txid;
    uint64_t last = before;
    for (size_t i = 0; i < s.commits.size() && s.commits[i].time <= *target_.time; i++)
      last = s.folded() ? s.trailer.max_txid : s.header.min_txid + i;
    return last;
  }

  // Applies the newest snapshot that is not damaged. A damaged one is passed over: the snapshot before it and the log
  // lead to the same states, and the checksum of each state is checked.
  Status Begin() {
    for (;;) {
      REPLICA_TRY(Choose());
      const Status status = ApplySnapshot();
      if (status.code() != Code::kCorrupt) return status;
      PassOver(plan_.snapshot.txid, status);
      out_ = {};
      done_ = 0;
      if (::ftruncate(fd_, 0) != 0) return ErrnoStatus(errno, "truncate", path_);
    }
  }

  // Plans the restore from the newest snapshot whose index can be read.
  Status Choose() {
    for (;;) {
      Status status = MakePlan();
      if (!status.ok()) return damaged_.empty() ? status : Without(status);
      // With nothing behind it, only its checksum tells that its header names the right place in the log.
      if (!plan_.log.empty() || target_.txid) return Ok();
      status = snapshot_reader_->CheckSha256();
      if (status.code() != Code::kCorrupt) return status;
      PassOver(plan_.snapshot.txid, status);
    }
  }

  // The error of a restore that passed over a damaged snapshot, and why it failed without it.
  Status Without(const Status& why) const {
    return {Code::kCorrupt, damaged_ + ". Without that snapshot: " + why.message()};
  }

  void PassOver(uint64_t txid, const Status& why) {
    snapshots_below_ = txid;
    if (!damaged_.empty()) return;
    damaged_ = why.message();
    passed_over_ = txid;
  }

  Status MakePlan() {
    REPLICA_ASSIGN(auto generations, ListGenerations(store_));
    if (generations.empty())
      return Missing("there is no replica here: check the URL (it must name the database's own prefix)");
    if (target_.generation) {
      if (std::find(generations.begin(), generations.end(), *target_.generation) == generations.end())
        return Missing("there is no generation " + HexEncode(*target_.generation));
      generations.assign(1, *target_.generation);  // GCC 14 warns of "= {…}" at -O3
    }
    for (auto id = generations.rbegin(); id != generations.rend(); ++id) {
      plan_.generation = *id;
      REPLICA_ASSIGN(auto snapshots, ListSnapshots(store_, *id));
      if (snapshots.empty())
        return Missing("generation " + HexEncode(*id) +
                       " has no snapshot (its first upload did not end, or it was removed); an older generation is "
                       "restored by naming it, as in the target '<generation>/latest'");
      bool found = false;
      REPLICA_TRY(ChooseSnapshot(snapshots, &found));
      if (found) break;
      if (!damaged_.empty()) return Missing("no older snapshot of generation " + HexEncode(*id) + " serves");
      // Only an older generation can reach further back in time; TXIDs count within a generation.
      if (!target_.time || std::next(id) == generations.rend())
        return Missing(target_.txid
                           ? "TXID " + std::to_string(*target_.txid) + " is before the oldest snapshot, of TXID " +
                                 std::to_string(snapshots.front().txid)
                           : "nothing is restorable at or before " + FormatTime(*target_.time));
    }
    REPLICA_ASSIGN(plan_.log, ListLog(store_, plan_.generation, snapshot_reader_->segment().header.sequence));
    planned_ = plan_.snapshot.size;
    for (const LogObject& entry : plan_.log) planned_ += entry.size;
    return Ok();
  }

  Status ChooseSnapshot(const std::vector<SnapshotObject>& snapshots, bool* found) {
    for (auto s = snapshots.rbegin(); s != snapshots.rend(); ++s) {
      if (s->txid >= snapshots_below_ || (target_.txid && s->txid > *target_.txid)) continue;
      snapshot_ = std::make_unique<StoreBytes>(store_, SnapshotKey(plan_.generation, s->txid), s->size);
      auto reader = SegmentReader::Open(snapshot_.get());
      if (reader.status().code() == Code::kCorrupt) {
        PassOver(s->txid, reader.status());
        continue;
      }
      REPLICA_ASSIGN(snapshot_reader_, std::move(reader));
      if (target_.time && snapshot_reader_->segment().commits.back().time > *target_.time) continue;
      plan_.snapshot = *s;
      *found = true;
      return Ok();
    }
    return Ok();
  }

  Status Foreign(const std::string& name, const std::string& what) const {
    return {Code::kCorrupt, name + ": does not belong here: " + what +
                                " (a foreign or misplaced object); the history cannot be restored past it"};
  }

  Status ApplySnapshot() {
    const StoreBytes& bytes = *snapshot_;
    const Segment& s = snapshot_reader_->segment();
    if (!s.snapshot()) return Foreign(bytes.name(), "it is no snapshot");
    if (s.header.generation != plan_.generation)
      return Foreign(bytes.name(), "it is of generation " + HexEncode(s.header.generation));
    if (s.trailer.max_txid != plan_.snapshot.txid)
      return Foreign(bytes.name(), "it is of TXID " + std::to_string(s.trailer.max_txid));
    const uint64_t lock_pages = s.trailer.pages_after >= LockPage(s.header.page_size) ? 1 : 0;
    if (s.trailer.version_count + lock_pages != s.trailer.pages_after)
      return Foreign(bytes.name(), "it does not hold every page");
    out_.database = s.header.database;
    out_.generation = plan_.generation;
    out_.page_size = s.header.page_size;
    out_.table = PageTable(out_.page_size);
    out_.sequence = s.header.sequence;
    return Apply(snapshot_reader_.get(), bytes, s.trailer.max_txid);
  }

  Status ApplyLog() {
    std::deque<std::unique_ptr<StoreBytes>> fetched;
    size_t next = 0;
    uint64_t expected = out_.sequence + 1;
    bool reached = Reached();
    for (size_t i = 0; i < plan_.log.size() && !reached; i++, expected++) {
      if (plan_.log[i].sequence != expected) break;
      for (; next < plan_.log.size() && next < i + kPrefetch; next++) {
        fetched.push_back(std::make_unique<StoreBytes>(store_, LogKey(plan_.generation, plan_.log[next].sequence),
                                                       plan_.log[next].size));
        fetched.back()->Prefetch();
      }
      Status applied = ApplyLogObject(fetched.front().get(), expected, &reached);
      if (applied.code() == Code::kCorrupt) return {Code::kCorrupt, applied.message() + Restorable()};
      REPLICA_TRY(std::move(applied));
      fetched.pop_front();
    }
    if (reached) return Ok();
    if (!plan_.log.empty() && expected <= plan_.log.back().sequence)
      return {Code::kCorrupt, Hole(expected).message() + Restorable()};
    if (target_.txid) return NotReached(out_.txid);
    // The history went on to that snapshot at least.
    if (out_.txid < passed_over_) return {Code::kCorrupt, EndsBefore().message() + Restorable()};
    return Ok();  // latest, or a time after the last commit
  }

  // What can be had when the history cannot be read to the target.
  std::string Restorable() const {
    return ". TXIDs up to " + std::to_string(out_.txid) + " (" + FormatTime(out_.time) +
           ") can be restored by naming one: --to " + std::to_string(out_.txid);
  }

  Status EndsBefore() const {
    return {Code::kCorrupt,
            damaged_ + ". Without that snapshot: the log ends before TXID " + std::to_string(passed_over_)};
  }

  bool Reached() const { return target_.txid && out_.txid == *target_.txid; }

  Status ApplyLogObject(StoreBytes* bytes, uint64_t sequence, bool* reached) {
    REPLICA_ASSIGN(auto reader, SegmentReader::Open(bytes));
    const Segment& s = reader->segment();
    // Damage in the header shows only in the checksum of the whole; then nothing that the header says means anything.
    if (s.header.kind != SegmentKind::kLog || s.header.generation != plan_.generation ||
        s.header.database != out_.database || s.header.sequence != sequence || s.header.page_size != out_.page_size ||
        s.header.min_txid != out_.txid + 1)
      REPLICA_TRY(reader->CheckSha256());
    if (s.header.kind != SegmentKind::kLog) return Foreign(bytes->name(), "it is no log segment");
    if (s.header.generation != plan_.generation || s.header.database != out_.database)
      return Foreign(bytes->name(), "it is of another database or generation");
    if (s.header.sequence != sequence)
      return Foreign(bytes->name(), "it is log segment " + std::to_string(s.header.sequence));
    if (s.header.page_size != out_.page_size) return Foreign(bytes->name(), "its page size differs");
    if (s.header.min_txid != out_.txid + 1 || s.trailer.checksum_before != out_.table.checksum() ||
        s.trailer.pages_before != out_.table.pages())
      return Foreign(bytes->name(), "it does not follow TXID " + std::to_string(out_.txid));
    REPLICA_ASSIGN(const uint64_t cut, Cut(s, bytes->name()));
    if (target_.time && cut < s.trailer.max_txid) *reached = true;
    if (cut == out_.txid) return Ok();
    REPLICA_TRY(Apply(reader.get(), *bytes, cut));
    out_.sequence = sequence;
    if (Reached()) *reached = true;
    return Ok();
  }

  // Writes the segment's pages as of TXID `cut` into the file and checks the state that comes out.
  Status Apply(SegmentReader* reader, const StoreBytes& bytes, uint64_t cut) {
    const Segment& s = reader->segment();
    const uint32_t size = out_.page_size;
    uint64_t most = s.trailer.pages_after;
    for (const CommitEntry& c : s.commits) most = std::max<uint64_t>(most, c.pages);
    // Every page that a commit adds is written in it, so the size of the segment bounds the growth (the lock page is
    // the one that may come without).
    if (most > uint64_t{out_.table.pages()} + s.trailer.version_count + 1)
      return Foreign(bytes.name(), "the database grows by more pages than it holds");
    PageTable& table = out_.table;
    if (table.pages() < most) table.Resize(static_cast<uint32_t>(most));

    std::string pending(size, '\0');
    uint32_t pending_page = 0;
    auto flush = [&]() -> Status {
      if (pending_page == 0) return Ok();
      table.Set(pending_page, PageHash(pending.data(), size, pending_page));
      return WriteAt(fd_, pending.data(), size, uint64_t{pending_page - 1} * size, path_);
    };
    auto base = [&](uint32_t page, uint8_t* out) -> Status {
      REPLICA_ASSIGN(size_t n, ReadAt(fd_, out, size, uint64_t{page - 1} * size, path_));
      if (n != size)
        return {Code::kCorrupt, bytes.name() + ": damaged segment: coded against page " + std::to_string(page) +
                                    ", which is not there"};
      return Ok();
    };
    uint64_t seen = 0;
    REPLICA_TRY(reader->ReadAll(base, [&](const PageVersion& v, const uint8_t* data) -> Status {
      if (seen++ % kProgressVersions == 0)
        REPLICA_TRY(
            Progress(done_ + static_cast<uint64_t>(static_cast<double>(bytes.size()) * static_cast<double>(seen) /
                                                   static_cast<double>(s.trailer.version_count + 1))));
      if (v.page != pending_page) REPLICA_TRY(flush());
      if (v.page != pending_page) pending_page = 0;
      if (v.txid > cut) return Ok();
      pending_page = v.page;
      std::memcpy(pending.data(), data, size);
      return Ok();
    }));
    REPLICA_TRY(flush());

    const CommitEntry& commit = CommitAt(s, cut);
    table.Resize(commit.pages);
    if (::ftruncate(fd_, static_cast<off_t>(uint64_t{commit.pages} * size)) != 0)
      return ErrnoStatus(errno, "resize", path_);
    if (table.checksum() != commit.checksum)
      return {Code::kCorrupt,
              bytes.name() + ": damaged segment: TXID " + std::to_string(cut) + " does not come out with its checksum"};
    out_.txid = cut;
    out_.time = commit.time;
    out_.objects++;
    done_ += bytes.size();
    return Progress(done_);
  }

  Status Progress(uint64_t done) const {
    if (!progress_ || progress_(done, planned_)) return Ok();
    return {Code::kInterrupted, "the restore was called off"};
  }

  // Reads the file back: what is on the disk is what the checksum says.
  Status Prove() {
    const uint32_t size = out_.page_size;
    const uint32_t per_read = std::max<uint32_t>(1, (1 << 20) / size);
    std::string buffer(size_t{per_read} * size, '\0');
    uint64_t checksum = 0;
    for (uint32_t page = 1; page <= out_.table.pages();) {
      const uint32_t count = std::min(per_read, out_.table.pages() - page + 1);
      REPLICA_ASSIGN(size_t n, ReadAt(fd_, buffer.data(), size_t{count} * size, uint64_t{page - 1} * size, path_));
      if (n != size_t{count} * size) return {Code::kIo, path_ + " is shorter than it was written"};
      for (uint32_t i = 0; i < count; i++, page++)
        if (page != LockPage(size)) checksum ^= PageHash(buffer.data() + size_t{i} * size, size, page);
    }
    if (checksum != out_.table.checksum())
      return {Code::kIo, path_ + " reads back differently from what was written: check the disk"};
    return SyncFile(fd_, path_);
  }

  Store* const store_;
  const RestoreTarget target_;
  const std::string path_;
  const int fd_;
  const RestoreProgress progress_;
  Plan plan_;
  std::unique_ptr<StoreBytes> snapshot_;
  std::unique_ptr<SegmentReader> snapshot_reader_;
  uint64_t snapshots_below_ = UINT64_MAX;  // TXID: the snapshots from there on are damaged, or too new
  std::string damaged_;                    // what is wrong with the newest of them …
  uint64_t passed_over_ = 0;               // … and its TXID
  RestoredDatabase out_;
  uint64_t done_ = 0;
  uint64_t planned_ = 0;
};

// What an earlier database of this path had not sent yet is moved aside, not deleted.
Status MoveSpoolAside(const std::string& folder) {
  REPLICA_ASSIGN(auto unsent, ListFiles(folder + "/spool"));
  if (unsent.empty()) return Ok();
  const std::string aside = folder + "-" + std::to_string(SystemClock().WallMicros());
  if (::rename((folder + "/spool").c_str(), aside.c_str()) != 0)
    return ErrnoStatus(errno, "move aside", folder + "/spool");
  return Ok();
}

EngineState RestoredState(const StateFile& file, const std::string& url, const RestoredDatabase& restored) {
  EngineState state;
  // Behind whatever was there before, also if a power loss brings that back.
  const auto before = file.LoadHeader();
  state.revision = before ? before->revision + 1 : 1;
  state.database = restored.database;
  state.generation = restored.generation;
  state.writer = RandomNumber();
  state.folder_identity = file.FolderIdentity();
  state.page_size = restored.page_size;
  state.txid = state.acknowledged_txid = restored.txid;
  state.sequence = state.acknowledged_sequence = restored.sequence;
  state.checksum = restored.checksum;
  state.restored = true;
  state.url = url;
  return state;
}

// Holds the locks of a path's replica folder: one restore at a time, and no uploader meanwhile.
Result<LockFile> LockFolder(const std::string& path) {
  const std::string lock_path = LockPath(path + "-replica");
  LockFile fd;
  for (bool current = false; !current;) {
    // A restore that failed meanwhile may have removed the folder that it had made, and the lock in it.
    REPLICA_TRY(MakeOwnFolder(path + "-replica", path));
    auto opened = OpenOwnFile(lock_path, O_RDWR | O_CREAT);
    if (opened.status().code() == Code::kNotFound) continue;
    REPLICA_TRY(opened.status());
    fd = LockFile(std::move(*opened));
    REPLICA_TRY(Lock(fd.get(), LockByte::kRestore, lock_path));
    struct stat held {};
    current = ::fstat(fd.get(), &held) == 0 && FileIdOf(lock_path) == FileId{held.st_dev, held.st_ino};
  }
  if (FileExists(path))
    return Status(Code::kExists, path + " exists: a restore never overwrites; remove it or choose another path");
  if (!TryLock(fd.get(), LockByte::kLeader))
    return Status(Code::kConflict,
                  path + " is being replicated by a running process: stop it before restoring to this path");
  return fd;
}

// Removes a folder that was made for a restore that then failed, unless somebody has begun to use it. A control block
// is made under the creation lock, so none is being made while that is held, and without one nobody counts on this
// lock: whoever waits for it looks again (LockFolder), or makes both anew.
void RemoveUnusedFolder(const std::string& folder, int lock_fd) {
  if (!TryLock(lock_fd, LockByte::kCreation) || FileExists(folder + "/control")) return;
  if (RemoveFile(LockPath(folder)).ok()) (void)::rmdir(folder.c_str());
}

}  // namespace

Result<RestoreTarget> ParseTarget(const std::string& text) {
  RestoreTarget target;
  Id generation;
  if (text.size() > 32 && text[32] == '/' && ParseId(std::string_view(text).substr(0, 32), &generation)) {
    REPLICA_ASSIGN(target, ParseTarget(text.substr(33)));
    target.generation = generation;
    return target;
  }
  if (text == "latest") return target;
  if (text.find_first_not_of("0123456789") == std::string::npos && text.size() <= 19) {
    target.txid = std::strtoull(text.c_str(), nullptr, 10);
    if (*target.txid == 0) return Status(Code::kInvalidArgument, "TXIDs count from 1: \"" + text + "\" is none");
    return target;
  }
  int64_t time = 0;
  if (!ParseTime(text, &time))
    return Status(
        Code::kInvalidArgument,
        "\"" + text + "\" is no restore target: give \"latest\", a TXID, or a time such as 2026-01-31T12:00:00Z");
  target.time = time;
  return target;
}

Result<RestorePlan> PlanRestore(Store* store, const RestoreTarget& target) {
  return Restorer(store, target, "", -1, {}).Outline();
}

Result<TemporaryCopy> TemporaryCopy::In(const std::string& folder) {
  return Create(folder + kCopyPrefix);
}

Result<TemporaryCopy> TemporaryCopy::Beside(const std::string& path) {
  return Create(path + kRestorePrefix);
}

Result<TemporaryCopy> TemporaryCopy::Create(const std::string& prefix) {
  RemoveAbandonedOf(prefix);
  for (;;) {
    std::string path = prefix + Hex16(RandomNumber());
    REPLICA_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL));
    // A lock of the description, not of the process: SQLite opens and closes the file meanwhile.
    if (::flock(fd.get(), LOCK_EX) != 0) return ErrnoStatus(errno, "lock", path);
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat", path);
    if (st.st_nlink != 0) return TemporaryCopy(std::move(path), std::move(fd));
    // Somebody found it before it was locked.
  }
}

void TemporaryCopy::RemoveAbandoned(const std::string& folder) {
  RemoveAbandonedOf(folder + kCopyPrefix);
}

void TemporaryCopy::RemoveAbandonedOf(const std::string& prefix) {
  const std::string folder = ParentFolder(prefix);
  const std::string start = BaseName(prefix);
  auto names = ListFiles(folder);
  if (!names.ok()) return;
  std::string path;
  for (const std::string& name : *names) {
    uint64_t number = 0;
    if (name.rfind(start, 0) != 0 || !ParseHex16(std::string_view(name).substr(start.size()), &number)) continue;
    path.assign(folder).append("/").append(name);
    auto fd = OpenOwnFile(path, O_RDONLY);
    if (fd.ok() && ::flock(fd->get(), LOCK_EX | LOCK_NB) == 0) (void)RemoveFile(path);
  }
}

TemporaryCopy::TemporaryCopy(TemporaryCopy&& other) noexcept
    : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}

TemporaryCopy::~TemporaryCopy() {
  if (!path_.empty()) (void)RemoveFile(path_);
}

Status TemporaryCopy::MoveTo(const std::string& path) {
  // A close later on would take the locks of an SQLite that has opened the database by then.
  fd_ = {};
  // link(2) refuses to overwrite what may have appeared meanwhile.
  if (::link(path_.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "move restored database to", path);
  (void)RemoveFile(std::exchange(path_, {}));
  return Ok();
}

Result<RestoredDatabase> TemporaryCopy::Restore(Store* store, const RestoreTarget& target,
                                                const RestoreProgress& progress) {
  return Restorer(store, target, path_, fd_.get(), progress).Run();
}

Result<RestoredDatabase> RestoreDatabase(Store* store, const RestoreTarget& target, const std::string& path,
                                         const RestoreProgress& progress) {
  for (const char* suffix : {"", "-wal", "-journal"}) {
    if (FileExists(path + suffix))
      return Status(Code::kExists,
                    path + suffix + " exists: a restore never overwrites; remove it or choose another path");
  }
  if (!FileExists(ParentFolder(path)))
    return Status(Code::kNotFound, "the folder " + ParentFolder(path) + " does not exist: create it first");
  const std::string folder = path + "-replica";
  const bool folder_is_new = !FileExists(folder);
  REPLICA_ASSIGN(const LockFile lock, LockFolder(path));
  REPLICA_ASSIGN(TemporaryCopy copy, TemporaryCopy::Beside(path));
  auto restored = copy.Restore(store, target, progress);
  if (!restored.ok()) {
    if (folder_is_new) RemoveUnusedFolder(folder, lock.get());
    return restored;
  }
  // The state first, and the file last: whoever finds the file finds how it came there. Nobody leads meanwhile.
  StateFile file(folder);
  EngineState state = RestoredState(file, store->url(), *restored);
  Status status = MoveSpoolAside(folder);
  if (status.ok()) status = MakeOwnFolder(folder + "/spool", path);
  state.file = FileIdOf(copy.path());
  if (status.ok()) status = file.SaveAll(&state, restored->table);
  if (status.ok()) {
    status = copy.MoveTo(path);
    if (!status.ok()) {
      (void)RemoveFile(folder + "/state");  // it is not that file's
      (void)RemoveFile(folder + "/state-redo");
    }
  }
  if (status.ok()) status = SyncFolder(ParentFolder(path));
  if (!status.ok()) return status;
  // As it is from now on, links and all. Without it the first start compares every page.
  state.stamp = StampOf(path);
  (void)file.Save(&state, restored->table, {});
  return restored;
}

}  // namespace replica

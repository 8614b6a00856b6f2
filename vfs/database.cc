#include "vfs/database.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/as_owner.h"
#include "base/byte_lock.h"
#include "base/futex.h"
#include "base/hash.h"
#include "uploader/page_table.h"

namespace replica {
namespace {

constexpr uint64_t kChunkMagic = 0x324b48434a524c52;    // "RLRJCHK2"
constexpr uint64_t kChunkMagicV1 = 0x314b48434a524c52;  // "RLRJCHK1", of versions before 0.2: names no chain
constexpr char kJournalPrefix[] = "journal-";
constexpr size_t kCopyBytes = 1 << 20;

// True when the wal-index no longer has these salts. A header that is being changed just now is read again.
bool Restarted(const volatile void* region0, const WalSalts& salts) {
  WalIndexHeader now;
  for (int attempt = 0; attempt < 100; attempt++)
    if (ReadWalIndexHeader(region0, &now)) return now.wal_salts() != salts;
  return true;
}

uint64_t InodeOf(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

// Multigrain timestamps: a change after a stat(2) has another time, however soon it comes. (An overlay does not say
// what lies below it.)
bool HasFineTimes(const std::string& path) {
  utsname system{};
  int major = 0;
  int minor = 0;
  if (::uname(&system) != 0 || std::sscanf(system.release, "%d.%d", &major, &minor) != 2) return false;
  if (major < 6 || (major == 6 && minor < 13)) return false;
  struct statfs st {};
  if (::statfs(path.c_str(), &st) != 0) return false;
  for (const unsigned known :
       {unsigned{EXT4_SUPER_MAGIC}, unsigned{XFS_SUPER_MAGIC}, unsigned{BTRFS_SUPER_MAGIC}, unsigned{TMPFS_MAGIC}})
    if (static_cast<unsigned>(st.f_type) == known) return true;
  return false;
}

}  // namespace

std::string EncodeChunk(const JournalChunk& c) {
  std::string out;
  AppendLittle<uint64_t>(out, kChunkMagic);
  out.append(reinterpret_cast<const char*>(c.salts.data()), c.salts.size());
  AppendLittle<uint32_t>(out, c.page_size);
  AppendLittle<uint32_t>(out, c.first);
  AppendLittle<uint32_t>(out, c.count);
  AppendLittle<uint32_t>(out, c.changes);
  AppendLittle<uint32_t>(out, c.at_end ? 1 : 0);
  AppendLittle<uint32_t>(out, c.ordinal);
  AppendLittle<uint64_t>(out, c.chain);
  AppendLittle<uint32_t>(out, c.previous_end);
  out.resize(kJournalChunkSize - 8, '\0');
  AppendLittle<uint64_t>(out, Hash64(out));
  return out;
}

bool DecodeChunk(std::string_view bytes, JournalChunk* c) {
  if (bytes.size() != kJournalChunkSize) return false;
  if (Hash64(bytes.substr(0, kJournalChunkSize - 8)) != LoadLittle<uint64_t>(bytes.data() + kJournalChunkSize - 8))
    return false;
  ByteReader in(bytes);
  const auto magic = in.Little<uint64_t>();
  if (magic != kChunkMagic && magic != kChunkMagicV1) return false;
  std::memcpy(c->salts.data(), in.Bytes(8).data(), 8);
  c->page_size = in.Little<uint32_t>();
  c->first = in.Little<uint32_t>();
  c->count = in.Little<uint32_t>();
  c->changes = in.Little<uint32_t>();
  c->at_end = in.Little<uint32_t>() != 0;
  // Frame numbers that wrap, or pages of no size, would be believed by everybody who reckons with them.
  if (!ValidPageSize(c->page_size) || c->first == 0 || c->count == 0 || c->count > UINT32_MAX - c->first) return false;
  if (magic == kChunkMagicV1) return true;
  c->ordinal = in.Little<uint32_t>();
  c->chain = in.Little<uint64_t>();
  c->previous_end = in.Little<uint32_t>();
  return true;
}

Result<std::shared_ptr<Database>> Database::Create(const std::string& path) {
  REPLICA_TRY(MakeOwnFolder(FolderOf(path), path));
  REPLICA_TRY(MakeOwnFolder(FolderOf(path) + "/spool", path));
  REPLICA_ASSIGN(auto mapping, ControlMapping::Open(FolderOf(path)));
  return Open(path, std::move(mapping));
}

Result<std::shared_ptr<Database>> Database::Find(const std::string& path) {
  struct stat st {};
  if (::lstat(FolderOf(path).c_str(), &st) != 0) return Status(Code::kNotFound, FolderOf(path) + " is not there");
  REPLICA_TRY(MakeOwnFolder(FolderOf(path), path));
  REPLICA_ASSIGN(auto mapping, ControlMapping::OpenExisting(FolderOf(path)));
  return Open(path, std::move(mapping));
}

Result<std::shared_ptr<Database>> Database::Open(const std::string& path, std::unique_ptr<ControlMapping> mapping) {
  REPLICA_ASSIGN(UniqueFd fd, OpenOwnFile(LockPath(FolderOf(path)), O_RDWR | O_CREAT));
  return std::shared_ptr<Database>(new Database(path, std::move(mapping), std::move(fd)));
}

Database::Database(std::string path, std::unique_ptr<ControlMapping> mapping, UniqueFd lock_fd)
    : path_(std::move(path)),
      folder_(FolderOf(path_)),
      fine_times_(HasFineTimes(path_)),
      mapping_(std::move(mapping)),
      control_(mapping_->block()),
      control_inode_(InodeOf(folder_ + "/control")),
      lock_fd_(std::move(lock_fd)) {}

void Database::Wake() noexcept {
  // Of the commits that see the threshold passed, one wakes.
  if (control_->wake_at.exchange(kWakeNever, std::memory_order_seq_cst) == kWakeNever) return;
  control_->commit_wakes.fetch_add(1, std::memory_order_relaxed);
  control_->wake_word.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(&control_->wake_word);
}

std::string Database::JournalPath(uint64_t index) const {
  return spool_folder() + "/" + kJournalPrefix + Hex16(index);
}

Status Database::LockGateFile() {
  return Lock(lock_fd_.get(), LockByte::kGate, LockPath(folder_));
}

void Database::UnlockGateFile() {
  Unlock(lock_fd_.get(), LockByte::kGate);
}

void Database::PassGate(const volatile void* region0, RestartBy by) noexcept {
  try {
    KeepFrames(region0, by);
  } catch (const std::exception&) {
    // No memory, most likely: the frames go, and the leader finds the difference.
    control_->active.store(0);
    control_->overflow.store(1);
    WakeLeader(control_);
  }
}

void Database::KeepFrames(const volatile void* region0, RestartBy by) {
  ControlBlock* c = control_;
  WalIndexHeader header;
  // Nobody changes it now; a header that does not check is one that SQLite will recover, restarting nothing.
  if (!ReadWalIndexHeader(region0, &header)) return;
  const bool broken = NoteGate(header, by);
  if (header.max_frame == 0) {
    // Somebody without libreplica wrote into the WAL and restarted it: what the leader has captured leads nowhere.
    if (broken && c->active.load() != 0) {
      c->active.store(0);
      c->overflow.store(1);
      WakeLeader(c);
    }
    return;
  }
  const uint64_t end = PackPosition(header.wal_salts(), header.max_frame);
  auto is_durable = [&] {
    const uint64_t durable = c->durable.load(std::memory_order_acquire);
    return durable >> 32 == end >> 32 && durable >= end;
  };
  if (c->active.load(std::memory_order_seq_cst) != 0 && !is_durable()) {
    MutexLock lock(gate_);
    Status status = LockGateFile();
    if (status.ok()) {
      if (c->active.load(std::memory_order_relaxed) != 0 && !is_durable()) {
        const uint64_t durable = c->durable.load(std::memory_order_relaxed);
        const uint32_t first = durable >> 32 == end >> 32 ? static_cast<uint32_t>(durable) + 1 : 1;
        const uint64_t bytes = uint64_t{header.max_frame - first + 1} * (header.page_size() + kFrameHeaderSize);
        // At least one whole WAL is always allowed, so that a tiny bound does not mean a resync at each restart.
        const uint64_t held = c->journal_total.load() + c->spool_bytes.load();
        if (held != 0 && held + bytes > c->spool_limit.load())
          status = Status(Code::kFull, "spool bound reached");
        else
          status = Append(region0, header, first, header.max_frame).status();
        if (!status.ok()) {
          c->active.store(0);
          c->overflow.store(1);
        }
      }
      UnlockGateFile();
    } else {
      c->active.store(0);
      c->overflow.store(1);
    }
    WakeLeader(c);
  }
}

void Database::AddUser() {
  MutexLock lock(gate_);
  if (users_++ != 0) return;
  if (TryLock(lock_fd_.get(), LockByte::kUsers)) {
    UnjudgeChain();
  }
  // Waits at most for another process that is at these two lines.
  (void)LockShared(lock_fd_.get(), LockByte::kUsers, LockPath(folder_));
}

void Database::RemoveUser() {
  MutexLock lock(gate_);
  if (--users_ == 0) Unlock(lock_fd_.get(), LockByte::kUsers);
}

void Database::ForgetIfUnused() {
  MutexLock lock(gate_);
  if (users_ != 0 || !TryLock(lock_fd_.get(), LockByte::kUsers)) return;
  control_->active.store(0);
  Unlock(lock_fd_.get(), LockByte::kUsers);
}

void Database::KeepOldest(uint32_t slot, uint32_t changes) noexcept {
  ControlBlock* c = control_;
  const uint32_t captured = c->captured_changes.load(std::memory_order_relaxed);
  const auto waiting = static_cast<int32_t>(changes - captured);
  if (waiting <= 0) return;
  const auto kept = static_cast<int32_t>(c->oldest_changes.load(std::memory_order_relaxed) - captured);
  if (kept > 0 && kept <= waiting && c->oldest_time.load(std::memory_order_relaxed) != 0) return;
  // Called twice a round, so it is still in the ring unless capture went on in between: then the oldest that is.
  const uint32_t back = std::min<uint32_t>({static_cast<uint32_t>(waiting) - 1, kCommitTimes - 1, slot});
  c->oldest_time.store(c->times[(slot - back) % kCommitTimes].time.load(std::memory_order_relaxed),
                       std::memory_order_relaxed);
  c->oldest_changes.store(changes - back, std::memory_order_release);
}

Result<bool> Database::Append(const volatile void* region0, const WalIndexHeader& header, uint32_t first,
                              uint32_t last) {
  ControlBlock* c = control_;
  const uint32_t page_size = header.page_size();
  const std::string path = JournalPath(c->journal_index.load());
  uint64_t at = c->journal_size.load();
  const std::string wal = wal_path();
  // Opening and closing the -wal is harmless: it carries no locks.
  REPLICA_ASSIGN(UniqueFd from, OpenFile(wal, O_RDONLY));
  REPLICA_ASSIGN(UniqueFd to, OpenOwnFile(path, O_RDWR | O_CREAT));
  if (at == 0) GiveToOwner(to.get(), folder_);
  JournalChunk chunk;
  chunk.salts = header.wal_salts();
  chunk.page_size = page_size;
  chunk.first = first;
  chunk.count = last - first + 1;
  chunk.changes = header.changes;
  chunk.at_end = last == header.max_frame;
  {
    ChainLock lock(this);
    if (const WalChain chain = LoadChain(); chain.judged && chain.salts == chunk.salts) {
      chunk.chain = chain.id;
      chunk.ordinal = chain.ordinal;
      chunk.previous_end = chain.previous_end;
    }
  }
  const std::string head = EncodeChunk(chunk);
  REPLICA_TRY(WriteAt(to.get(), head.data(), head.size(), at, path));
  at += head.size();
  // Not a string: filling it with zeros first would cost the application's thread more than the copy.
  const auto buffer_size = static_cast<size_t>(std::min<uint64_t>(kCopyBytes, chunk.bytes()));
  const std::unique_ptr<char[]> buffer(new char[buffer_size]);
  const uint64_t start = FrameOffset(first, page_size);
  for (uint64_t done = 0; done < chunk.bytes();) {
    const auto n = static_cast<size_t>(std::min<uint64_t>(buffer_size, chunk.bytes() - done));
    REPLICA_ASSIGN(size_t got, ReadAt(from.get(), buffer.get(), n, start + done, wal));
    if (got != n) {
      if (Restarted(region0, chunk.salts)) return false;
      return Status(Code::kIo, wal + " is shorter than its wal-index says");
    }
    REPLICA_TRY(WriteAt(to.get(), buffer.get(), n, at + done, path));
    done += n;
  }
  // SQLite changes the wal-index's salts before it writes the first frame of a restarted WAL: with the old salts still
  // there, all that was read above is of the old WAL.
  if (Restarted(region0, chunk.salts)) return false;
  // The file is whole before anyone may count on it.
  c->journal_size.store(at + chunk.bytes(), std::memory_order_release);
  c->journal_total.fetch_add(kJournalChunkSize + chunk.bytes());
  c->durable.store(PackPosition(chunk.salts, last), std::memory_order_release);
  return true;
}

Status Database::JournalFrames(const volatile void* region0, uint32_t most) {
  MutexLock lock(gate_);
  REPLICA_TRY(LockGateFile());
  WalIndexHeader header;
  // The chunk says which WAL of the chain it is of. Somebody without libreplica may have begun this one.
  Status status = Look(region0, &header).status();
  if (status.ok() && header.max_frame != 0) {
    const uint64_t end = PackPosition(header.wal_salts(), header.max_frame);
    const uint64_t durable = control_->durable.load();
    const bool same = durable >> 32 == end >> 32;
    if (!same || durable < end) {
      const uint32_t first = same ? static_cast<uint32_t>(durable) + 1 : 1;
      const uint32_t last = first + std::min(header.max_frame - first, most - 1);
      status = Append(region0, header, first, last).status();
    }
  }
  UnlockGateFile();
  return status;
}

Result<std::vector<std::string>> Database::RotateJournal() {
  MutexLock lock(gate_);
  REPLICA_TRY(LockGateFile());
  if (control_->journal_size.load() != 0) {
    control_->journal_index.fetch_add(1);
    control_->journal_size.store(0);
  }
  const uint64_t current = control_->journal_index.load();
  UnlockGateFile();
  REPLICA_ASSIGN(auto names, ListFiles(spool_folder()));
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    uint64_t index = 0;
    if (name.rfind(kJournalPrefix, 0) == 0 &&
        ParseHex16(std::string_view(name).substr(sizeof kJournalPrefix - 1), &index) && index < current)
      paths.push_back(spool_folder() + "/" + name);
  }
  return paths;
}

Status Database::RemoveJournals(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    auto size = FileSize(path);
    REPLICA_TRY(RemoveFile(path));
    if (!size.ok()) continue;
    MutexLock lock(gate_);
    REPLICA_TRY(LockGateFile());
    const uint64_t total = control_->journal_total.load();
    control_->journal_total.store(total - std::min(total, *size));
    UnlockGateFile();
  }
  return Ok();
}

void Database::AdvanceDurable(uint64_t position) {
  MutexLock lock(gate_);
  if (!LockGateFile().ok()) return;  // then a gate copies frames once more: harmless
  const uint64_t durable = control_->durable.load();
  // Of two WALs the journal's is the later one: what is appended came after the last rotation, hence after `position`.
  const bool same = durable >> 32 == position >> 32;
  if (same ? durable < position : control_->journal_size.load() == 0)
    control_->durable.store(position, std::memory_order_release);
  UnlockGateFile();
}

Status Database::ResetJournal(uint64_t durable, bool drop) {
  MutexLock lock(gate_);
  REPLICA_TRY(LockGateFile());
  uint64_t next = control_->journal_index.load();
  uint64_t total = 0;
  Status status;
  auto names = ListFiles(spool_folder());
  status = names.status();
  if (status.ok()) {
    for (const std::string& name : *names) {
      uint64_t index = 0;
      if (name.rfind(kJournalPrefix, 0) != 0 ||
          !ParseHex16(std::string_view(name).substr(sizeof kJournalPrefix - 1), &index))
        continue;
      const std::string path = spool_folder() + "/" + name;
      next = std::max(next, index + 1);
      if (drop) {
        status = RemoveFile(path);
      } else if (auto size = FileSize(path); size.ok()) {
        total += *size;
      }
    }
    control_->journal_index.store(next);
    control_->journal_size.store(0);
    control_->journal_total.store(total);
    control_->durable.store(durable, std::memory_order_release);
  }
  UnlockGateFile();
  return status;
}

void Database::SetVfs(const std::string& name) {
  MutexLock lock(vfs_mutex_);
  vfs_ = name;
}

std::string Database::vfs() const {
  MutexLock lock(vfs_mutex_);
  return vfs_;
}

bool Database::Stale() const {
  return mapping_->lost() || InodeOf(folder_ + "/control") != control_inode_;
}

void Database::ForgetAfterFork() {
  // The object itself is the parent's image and is never used or destroyed in the child: only the descriptor goes.
  ::close(lock_fd_.get());
}

}  // namespace replica

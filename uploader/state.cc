#include "uploader/state.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include "base/boot.h"
#include "base/fs.h"
#include "base/hash.h"

namespace replica {
namespace {

constexpr uint64_t kMagic = 0x33305453524c5252;      // "RRLRST03"
constexpr uint64_t kChainMark = 0x314e48434c41574c;  // "LWALCHN1"
constexpr size_t kHeaderSize = 4096;                 // the page hashes follow, 8 bytes each
constexpr size_t kMaxUrl = 2048;
constexpr uint64_t kMaxRevision = INT64_MAX;  // where numbering begins again
// 2^32 pages of 8 bytes: no database has more.
constexpr uint64_t kMaxStateSize = kHeaderSize + (uint64_t{1} << 35);
// Neighbours this close are written together.
constexpr uint32_t kJoin = 64;

std::string EncodeState(const EngineState& s) {
  std::string out;
  AppendLittle<uint64_t>(out, kMagic);
  AppendLittle<uint64_t>(out, s.revision);
  out.append(reinterpret_cast<const char*>(s.database.data()), 16);
  out.append(reinterpret_cast<const char*>(s.generation.data()), 16);
  AppendLittle<uint64_t>(out, s.writer);
  AppendLittle<uint64_t>(out, s.folder_identity);
  AppendLittle<uint32_t>(out, s.page_size);
  AppendLittle<uint32_t>(out, s.pages);
  AppendLittle<uint64_t>(out, s.txid);
  AppendLittle<uint64_t>(out, s.sequence);
  AppendLittle<uint64_t>(out, s.checksum);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.time));
  out.append(reinterpret_cast<const char*>(s.wal.salts.data()), 8);
  AppendLittle<uint32_t>(out, s.wal.frame);
  AppendLittle<uint32_t>(out, s.wal.checksum[0]);
  AppendLittle<uint32_t>(out, s.wal.checksum[1]);
  // Versions before 0.2 kept another proof in these 20 bytes; neither takes the other's for its own.
  AppendLittle<uint64_t>(out, s.wal.chain);
  AppendLittle<uint32_t>(out, s.wal.ordinal);
  AppendLittle<uint64_t>(out, kChainMark);
  AppendLittle<uint64_t>(out, s.acknowledged_txid);
  AppendLittle<uint64_t>(out, s.acknowledged_sequence);
  AppendLittle<uint64_t>(out, s.snapshot_txid);
  AppendLittle<uint64_t>(out, s.snapshot_bytes);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.snapshot_time));
  AppendLittle<uint64_t>(out, s.log_bytes);
  AppendLittle<uint32_t>(out, (s.partial ? 1U : 0U) | (s.restored ? 2U : 0U) | (s.fenced ? 4U : 0U) |
                                  (s.behind ? 8U : 0U) | (s.claim_due ? 16U : 0U) | (s.unread ? 32U : 0U));
  AppendLittle<uint64_t>(out, s.stamp.device);
  AppendLittle<uint64_t>(out, s.stamp.inode);
  AppendLittle<uint64_t>(out, s.stamp.size);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.stamp.modified));
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.stamp.changed));
  const std::string url = s.url.substr(0, kMaxUrl);
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(url.size()));
  out += url;
  // Since version 0.2, which reads zeros here in an older state; older versions do not read this far.
  AppendLittle<uint64_t>(out, s.boot);
  AppendLittle<uint64_t>(out, s.file.device);
  AppendLittle<uint64_t>(out, s.file.inode);
  out.resize(kHeaderSize - 8, '\0');
  AppendLittle<uint64_t>(out, Hash64(out));
  return out;
}

bool DecodeState(std::string_view bytes, EngineState* s) {
  if (bytes.size() < kHeaderSize) return false;
  bytes = bytes.substr(0, kHeaderSize);
  if (Hash64(bytes.substr(0, kHeaderSize - 8)) != LoadLittle<uint64_t>(bytes.data() + kHeaderSize - 8)) return false;
  ByteReader in(bytes);
  if (in.Little<uint64_t>() != kMagic) return false;
  s->revision = in.Little<uint64_t>();
  std::memcpy(s->database.data(), in.Bytes(16).data(), 16);
  std::memcpy(s->generation.data(), in.Bytes(16).data(), 16);
  s->writer = in.Little<uint64_t>();
  s->folder_identity = in.Little<uint64_t>();
  s->page_size = in.Little<uint32_t>();
  s->pages = in.Little<uint32_t>();
  s->txid = in.Little<uint64_t>();
  s->sequence = in.Little<uint64_t>();
  s->checksum = in.Little<uint64_t>();
  s->time = static_cast<int64_t>(in.Little<uint64_t>());
  std::memcpy(s->wal.salts.data(), in.Bytes(8).data(), 8);
  s->wal.frame = in.Little<uint32_t>();
  s->wal.checksum[0] = in.Little<uint32_t>();
  s->wal.checksum[1] = in.Little<uint32_t>();
  s->wal.chain = in.Little<uint64_t>();
  s->wal.ordinal = in.Little<uint32_t>();
  if (in.Little<uint64_t>() != kChainMark) s->wal.chain = s->wal.ordinal = 0;
  s->acknowledged_txid = in.Little<uint64_t>();
  s->acknowledged_sequence = in.Little<uint64_t>();
  s->snapshot_txid = in.Little<uint64_t>();
  s->snapshot_bytes = in.Little<uint64_t>();
  s->snapshot_time = static_cast<int64_t>(in.Little<uint64_t>());
  s->log_bytes = in.Little<uint64_t>();
  const auto flags = in.Little<uint32_t>();
  s->partial = (flags & 1) != 0;
  s->restored = (flags & 2) != 0;
  s->fenced = (flags & 4) != 0;
  s->behind = (flags & 8) != 0;
  s->claim_due = (flags & 16) != 0;
  s->unread = (flags & 32) != 0;
  s->stamp.device = in.Little<uint64_t>();
  s->stamp.inode = in.Little<uint64_t>();
  s->stamp.size = in.Little<uint64_t>();
  s->stamp.modified = static_cast<int64_t>(in.Little<uint64_t>());
  s->stamp.changed = static_cast<int64_t>(in.Little<uint64_t>());
  s->url = in.Bytes(in.Little<uint32_t>());
  if (s->url.size() > kMaxUrl) return false;  // it would be saved as another one
  s->boot = in.Little<uint64_t>();
  s->file.device = in.Little<uint64_t>();
  s->file.inode = in.Little<uint64_t>();
  // Numbers that could wrap are none of ours.
  for (uint64_t number : {s->txid, s->sequence, s->acknowledged_txid, s->acknowledged_sequence, s->snapshot_txid,
                          s->snapshot_bytes, s->log_bytes})
    if (number > INT64_MAX) return false;
  return in.ok() && ValidPageSize(s->page_size) && ValidTime(s->time) && ValidTime(s->snapshot_time);
}

// Versions before 0.2 did not note the boot. A state that was written since the machine started is of this one.
uint64_t BootOf(const std::string& path) {
  struct stat st {};
  timespec up{};
  timespec now{};
  if (::stat(path.c_str(), &st) != 0 || clock_gettime(CLOCK_BOOTTIME, &up) != 0 ||
      clock_gettime(CLOCK_REALTIME, &now) != 0)
    return 0;
  return st.st_mtim.tv_sec > now.tv_sec - up.tv_sec ? BootHash() : 0;
}

// The header as it stands in the file; nothing when it is not there or does not check.
std::optional<EngineState> ReadHeader(const std::string& path) {
  auto fd = OpenOwnFile(path, O_RDONLY);
  std::string bytes(kHeaderSize, '\0');
  auto n = fd.ok() ? ReadAt(fd->get(), bytes.data(), bytes.size(), 0, path) : fd.status();
  EngineState found;
  if (!n.ok() || *n != bytes.size() || !DecodeState(bytes, &found)) return {};
  if (found.boot == 0) found.boot = BootOf(path);
  return found;
}

// The page hashes that a redo file carries, in `hashes`; false when it is not whole.
bool ApplyRedo(std::string_view redo, uint32_t pages, std::vector<uint64_t>* hashes) {
  if (redo.size() < kHeaderSize + 8) return false;
  const std::string_view body = redo.substr(kHeaderSize, redo.size() - kHeaderSize - 8);
  if (Hash64(body) != LoadLittle<uint64_t>(body.data() + body.size())) return false;
  // Pages that neither the state file nor the redo has a hash for: the table is not there.
  if (pages > hashes->size() + body.size() / 12) return false;
  hashes->resize(pages, 0);
  ByteReader in(body);
  while (in.remaining() >= 12) {
    const auto page = in.Little<uint32_t>();
    const auto hash = in.Little<uint64_t>();
    if (page >= 1 && page <= pages) (*hashes)[page - 1] = hash;
  }
  return true;
}

}  // namespace

FileId FileIdOf(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return {};
  return {st.st_dev, st.st_ino};
}

FileStamp StampOf(const std::string& path) {
  FileStamp stamp;
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return stamp;
  stamp.device = st.st_dev;
  stamp.inode = st.st_ino;
  stamp.size = static_cast<uint64_t>(st.st_size);
  stamp.modified = int64_t{st.st_mtim.tv_sec} * 1000000000 + st.st_mtim.tv_nsec;
  stamp.changed = int64_t{st.st_ctim.tv_sec} * 1000000000 + st.st_ctim.tv_nsec;
  return stamp;
}

uint64_t HashOf(const FileStamp& stamp) {
  if (stamp == FileStamp{}) return 0;
  return Hash64(std::string_view(reinterpret_cast<const char*>(&stamp), sizeof stamp));
}

int64_t TimeUnit(const FileStamp& stamp) {
  int64_t unit = 1;
  for (int64_t coarser : {100, 1000, 1000000, 10000000, 1000000000})
    if (stamp.modified % coarser == 0 && stamp.changed % coarser == 0) unit = coarser;
  return unit;
}

StateFile::StateFile(std::string folder)
    : folder_(std::move(folder)), path_(folder_ + "/state"), redo_path_(folder_ + "/state-redo") {}

Result<std::optional<EngineState>> StateFile::Load(PageTable* table, bool* table_valid) {
  *table_valid = false;
  std::optional<EngineState> state = ReadHeader(path_);
  const std::optional<EngineState> newer = ReadHeader(redo_path_);
  const bool merged = newer && (!state || newer->revision > state->revision);
  // The two are proof of each other's absence only: a torn one must not hide the other.
  if (!state && !newer) {
    auto fd = OpenOwnFile(path_, O_RDONLY);
    if (!fd.ok() && fd.status().code() != Code::kNotFound) return fd.status();
    return std::optional<EngineState>();
  }
  std::vector<uint64_t> hashes;
  if (auto fd = OpenOwnFile(path_, O_RDONLY); fd.ok()) {
    REPLICA_ASSIGN(const std::string bytes, ReadWhole(fd->get(), kMaxStateSize, path_));
    if (bytes.size() > kHeaderSize) hashes.resize((bytes.size() - kHeaderSize) / 8);
    if (!hashes.empty()) std::memcpy(hashes.data(), bytes.data() + kHeaderSize, hashes.size() * 8);
  }
  bool whole = true;
  if (merged) {
    state = newer;
    REPLICA_ASSIGN(UniqueFd fd, OpenOwnFile(redo_path_, O_RDONLY));
    REPLICA_ASSIGN(const std::string redo, ReadWhole(fd.get(), kMaxStateSize, redo_path_));
    whole = ApplyRedo(redo, state->pages, &hashes);
  }
  if (whole && hashes.size() >= state->pages) {
    hashes.resize(state->pages);
    table->Assign(state->page_size, std::move(hashes));
    *table_valid = state->partial || table->checksum() == state->checksum;
  }
  if (!*table_valid) *table = PageTable(state->page_size);
  // The next redo takes this one's place, whose hashes a crash kept from the file.
  if (merged && *table_valid) REPLICA_TRY(SaveAll(&*state, *table));
  return state;
}

std::optional<EngineState> StateFile::LoadHeader() const {
  std::optional<EngineState> state = ReadHeader(path_);
  std::optional<EngineState> newer = ReadHeader(redo_path_);
  return newer && (!state || newer->revision > state->revision) ? newer : state;
}

Status StateFile::Save(EngineState* state, const PageTable& table, const std::vector<uint32_t>& changed) {
  if (state->revision >= kMaxRevision) return SaveAll(state, table);
  state->revision++;
  state->boot = BootHash();
  state->pages = table.pages();
  std::string redo = EncodeState(*state);
  std::string body;
  for (uint32_t page : changed) {
    AppendLittle<uint32_t>(body, page);
    AppendLittle<uint64_t>(body, table.hashes()[page - 1]);
  }
  redo += body;
  AppendLittle<uint64_t>(redo, Hash64(body));
  REPLICA_TRY(ReplaceFile(redo_path_, redo, false));

  REPLICA_ASSIGN(UniqueFd fd, OpenOwnFile(path_, O_RDWR | O_CREAT));
  const auto* hashes = table.hashes().data();
  for (size_t i = 0; i < changed.size();) {
    size_t last = i;
    while (last + 1 < changed.size() && changed[last + 1] - changed[last] <= kJoin) last++;
    const uint32_t from = changed[i];
    const uint32_t to = changed[last];
    REPLICA_TRY(
        WriteAt(fd.get(), hashes + from - 1, uint64_t{to - from + 1} * 8, kHeaderSize + uint64_t{from - 1} * 8, path_));
    i = last + 1;
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(kHeaderSize + uint64_t{table.pages()} * 8)) != 0)
    return ErrnoStatus(errno, "resize", path_);
  const std::string header = EncodeState(*state);
  return WriteAt(fd.get(), header.data(), header.size(), 0, path_);
}

Status StateFile::SaveAll(EngineState* state, const PageTable& table) {
  if (state->revision >= kMaxRevision) {
    // No leader has saved as often: somebody made it up. A redo of the last revision would outlive every state.
    REPLICA_TRY(RemoveFile(redo_path_));
    state->revision = 0;
  }
  state->revision += 2;  // no redo of before counts any more
  state->boot = BootHash();
  state->pages = table.pages();
  std::string bytes = EncodeState(*state);
  bytes.append(reinterpret_cast<const char*>(table.hashes().data()), table.hashes().size() * 8);
  REPLICA_TRY(ReplaceFile(path_, bytes, true));
  // The folder's own name must outlive a power loss as well.
  return SyncFolder(ParentFolder(folder_));
}

namespace {

// What versions before 0.2 identified a folder by.
uint64_t MachineAndInode(const struct stat& st) {
  auto machine = ReadFile("/etc/machine-id", 4096);
  std::string text = machine.ok() ? *machine : "";
  AppendLittle<uint64_t>(text, st.st_dev);
  AppendLittle<uint64_t>(text, st.st_ino);
  return Hash64(text);
}

}  // namespace

uint64_t StateFile::FolderIdentity() const {
  struct statx st {};
  if (::statx(AT_FDCWD, folder_.c_str(), 0, STATX_INO | STATX_BTIME, &st) == 0 && (st.stx_mask & STATX_BTIME) != 0) {
    std::string text = "inode and birth time";
    AppendLittle<uint64_t>(text, st.stx_ino);
    AppendLittle<uint64_t>(text, static_cast<uint64_t>(st.stx_btime.tv_sec));
    AppendLittle<uint32_t>(text, st.stx_btime.tv_nsec);
    return Hash64(text);
  }
  struct stat plain {};
  ::stat(folder_.c_str(), &plain);
  return MachineAndInode(plain);
}

bool StateFile::IsFolder(uint64_t identity) const {
  if (identity == FolderIdentity()) return true;
  struct stat st {};
  return ::stat(folder_.c_str(), &st) == 0 && identity == MachineAndInode(st);
}

namespace {

// An id that is not random would make two writers one: nothing may go on with it. The kernel's, because OpenSSL's
// generator allocates, and crashes where it cannot (3.0).
void FillRandom(void* out, size_t size) {
  auto* at = static_cast<char*>(out);
  for (size_t left = size; left != 0;) {
    const ssize_t n = ::getrandom(at, left, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::runtime_error(std::string("the system has no random numbers: ") + std::strerror(errno));
    at += n;
    left -= static_cast<size_t>(n);
  }
}

}  // namespace

Id RandomId() {
  Id id{};
  FillRandom(id.data(), id.size());
  return id;
}

Result<Id> NewGenerationId(int64_t wall_micros, const Id& newest) {
  constexpr size_t kTimeBytes = 6;
  uint64_t millis = 0;
  for (size_t i = 0; i < kTimeBytes; i++) millis = millis << 8 | newest[i];
  if (newest != Id{}) millis++;
  millis = std::max(millis, static_cast<uint64_t>(std::max<int64_t>(wall_micros, 0) / 1000));
  if (millis >> (8 * kTimeBytes) != 0)
    return Status(Code::kConflict, "no generation can follow " + HexEncode(newest) +
                                       ": remove that folder, it was not made by libreplica");
  Id id = RandomId();
  for (size_t i = 0; i < kTimeBytes; i++) id[i] = static_cast<uint8_t>(millis >> (8 * (kTimeBytes - 1 - i)));
  return id;
}

uint64_t RandomNumber() {
  uint64_t n = 0;
  FillRandom(&n, sizeof n);
  return n;
}

}  // namespace replica

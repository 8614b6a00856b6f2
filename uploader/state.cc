#include "uploader/state.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/fs.h"
#include "base/hash.h"

namespace replica {
namespace {

constexpr uint64_t kMagic = 0x33305453524c5252;  // "RRLRST03"
constexpr size_t kHeaderSize = 4096;             // the page hashes follow, 8 bytes each
constexpr size_t kMaxUrl = 2048;
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
  AppendLittle<uint64_t>(out, s.anchor.life);
  AppendLittle<uint32_t>(out, s.anchor.changes);
  AppendLittle<uint64_t>(out, s.anchor.gate);
  AppendLittle<uint64_t>(out, s.acknowledged_txid);
  AppendLittle<uint64_t>(out, s.acknowledged_sequence);
  AppendLittle<uint64_t>(out, s.snapshot_txid);
  AppendLittle<uint64_t>(out, s.snapshot_bytes);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.snapshot_time));
  AppendLittle<uint64_t>(out, s.log_bytes);
  AppendLittle<uint32_t>(out, (s.partial ? 1U : 0U) | (s.restored ? 2U : 0U) | (s.fenced ? 4U : 0U));
  AppendLittle<uint64_t>(out, s.stamp.device);
  AppendLittle<uint64_t>(out, s.stamp.inode);
  AppendLittle<uint64_t>(out, s.stamp.size);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.stamp.modified));
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(s.stamp.changed));
  const std::string url = s.url.substr(0, kMaxUrl);
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(url.size()));
  out += url;
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
  s->anchor.life = in.Little<uint64_t>();
  s->anchor.changes = in.Little<uint32_t>();
  s->anchor.gate = in.Little<uint64_t>();
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
  s->stamp.device = in.Little<uint64_t>();
  s->stamp.inode = in.Little<uint64_t>();
  s->stamp.size = in.Little<uint64_t>();
  s->stamp.modified = static_cast<int64_t>(in.Little<uint64_t>());
  s->stamp.changed = static_cast<int64_t>(in.Little<uint64_t>());
  s->url = in.Bytes(in.Little<uint32_t>());
  return in.ok() && ValidPageSize(s->page_size);
}

}  // namespace

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
  auto bytes = ReadFile(path_, kMaxStateSize);
  if (!bytes.ok()) {
    if (bytes.status().code() == Code::kNotFound) return std::optional<EngineState>();
    return bytes.status();
  }
  EngineState state;
  if (!DecodeState(*bytes, &state)) return std::optional<EngineState>();
  std::vector<uint64_t> hashes((bytes->size() - kHeaderSize) / 8);
  if (!hashes.empty()) std::memcpy(hashes.data(), bytes->data() + kHeaderSize, hashes.size() * 8);

  auto redo = ReadFile(redo_path_, kMaxStateSize);
  EngineState newer;
  bool merged = false;
  if (redo.ok() && redo->size() >= kHeaderSize + 8 && DecodeState(*redo, &newer) &&
      newer.revision == state.revision + 1) {
    const std::string_view body(redo->data() + kHeaderSize, redo->size() - kHeaderSize - 8);
    if (Hash64(body) == LoadLittle<uint64_t>(body.data() + body.size())) {
      state = newer;
      merged = true;
      hashes.resize(state.pages, 0);
      ByteReader in(body);
      while (in.remaining() >= 12) {
        const auto page = in.Little<uint32_t>();
        const auto hash = in.Little<uint64_t>();
        if (page >= 1 && page <= state.pages) hashes[page - 1] = hash;
      }
    }
  }
  if (hashes.size() >= state.pages) {
    hashes.resize(state.pages);
    table->Assign(state.page_size, std::move(hashes));
    *table_valid = state.partial || table->checksum() == state.checksum;
  }
  if (!*table_valid) *table = PageTable(state.page_size);
  // The next redo takes this one's place, whose hashes a crash kept from the file.
  if (merged && *table_valid) REPLICA_TRY(SaveAll(&state, *table));
  return std::optional<EngineState>(state);
}

std::optional<EngineState> StateFile::LoadHeader() const {
  std::optional<EngineState> state;
  for (const std::string& path : {path_, redo_path_}) {
    auto fd = OpenOwnFile(path, O_RDONLY);
    std::string bytes(kHeaderSize, '\0');
    auto n = fd.ok() ? ReadAt(fd->get(), bytes.data(), bytes.size(), 0, path) : fd.status();
    EngineState found;
    if (n.ok() && *n == bytes.size() && DecodeState(bytes, &found) && (!state || found.revision == state->revision + 1))
      state = found;
  }
  return state;
}

Status StateFile::Save(EngineState* state, const PageTable& table, const std::vector<uint32_t>& changed) {
  state->revision++;
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
  state->revision += 2;  // no redo of before can follow it
  state->pages = table.pages();
  std::string bytes = EncodeState(*state);
  bytes.append(reinterpret_cast<const char*>(table.hashes().data()), table.hashes().size() * 8);
  return ReplaceFile(path_, bytes, false);
}

uint64_t StateFile::FolderIdentity() const {
  struct stat st {};
  ::stat(folder_.c_str(), &st);
  auto machine = ReadFile("/etc/machine-id", 4096);
  std::string text = machine.ok() ? *machine : "";
  AppendLittle<uint64_t>(text, st.st_dev);
  AppendLittle<uint64_t>(text, st.st_ino);
  return Hash64(text);
}

Id RandomId() {
  Id id{};
  RAND_bytes(id.data(), static_cast<int>(id.size()));
  return id;
}

Id NewGenerationId(int64_t wall_micros) {
  Id id = RandomId();
  const auto millis = static_cast<uint64_t>(wall_micros / 1000);
  for (int i = 0; i < 6; i++) id[static_cast<size_t>(i)] = static_cast<uint8_t>(millis >> (8 * (5 - i)));
  return id;
}

uint64_t RandomNumber() {
  uint64_t n = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&n), sizeof n);
  return n;
}

}  // namespace replica

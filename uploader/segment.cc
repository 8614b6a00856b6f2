#include "uploader/segment.h"

#include <algorithm>

#include "base/hash.h"
#include "base/sha256.h"
#include "uploader/page_table.h"

namespace replica {
namespace {

constexpr char kMagic[8] = {'L', 'R', 'S', 'E', 'G', '\r', '\n', '\x1a'};
constexpr char kEndMagic[8] = {'L', 'R', 'S', 'E', 'G', 'E', 'N', 'D'};
constexpr uint64_t kLeastFrame = 9;  // bytes of the smallest zstd frame
constexpr size_t kShaOffset = 152;
constexpr size_t kTrailerHashOffset = 184;

Status Damaged(const std::string& what) {
  return {Code::kCorrupt, "damaged segment: " + what};
}

}  // namespace

uint64_t Segment::size() const {
  return trailer.meta_offset + trailer.meta_stored + kSegmentTrailerSize;
}

uint64_t MetaLimit(uint64_t stored) {
  return (1ULL << 20) + stored * 256;
}

std::string EncodeHeader(const SegmentHeader& h) {
  std::string out(kMagic, sizeof kMagic);
  AppendLittle<uint16_t>(out, kSegmentVersion);
  AppendLittle<uint8_t>(out, static_cast<uint8_t>(h.kind));
  AppendLittle<uint8_t>(out, h.flags);
  AppendLittle<uint32_t>(out, h.page_size);
  out.append(reinterpret_cast<const char*>(h.database.data()), h.database.size());
  out.append(reinterpret_cast<const char*>(h.generation.data()), h.generation.size());
  AppendLittle<uint64_t>(out, h.writer);
  AppendLittle<uint64_t>(out, h.sequence);
  AppendLittle<uint64_t>(out, h.min_txid);
  out.resize(kSegmentHeaderSize, '\0');
  return out;
}

Result<SegmentHeader> DecodeHeader(std::string_view bytes) {
  if (bytes.size() < kSegmentHeaderSize) return Damaged("shorter than its header");
  if (std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    return Status(Code::kCorrupt, "damaged segment: the first bytes are not libreplica's");
  ByteReader in(bytes.substr(sizeof kMagic));
  auto version = in.Little<uint16_t>();
  if (version != kSegmentVersion)
    return Status(Code::kUnsupported, "segment format version " + std::to_string(version) +
                                          "; this libreplica reads version " + std::to_string(kSegmentVersion) +
                                          ": use a newer libreplica");
  SegmentHeader h;
  auto kind = in.Little<uint8_t>();
  if (kind < 1 || kind > 4) return Damaged("unknown kind " + std::to_string(kind));
  h.kind = static_cast<SegmentKind>(kind);
  h.flags = in.Little<uint8_t>();
  if ((h.flags & ~(kSegmentFolded | kSegmentResync | kSegmentPageHashes)) != 0)
    return Status(Code::kUnsupported, "segment uses features that this libreplica does not know");
  h.page_size = in.Little<uint32_t>();
  if (!ValidPageSize(h.page_size)) return Damaged("page size " + std::to_string(h.page_size));
  std::memcpy(h.database.data(), in.Bytes(16).data(), 16);
  std::memcpy(h.generation.data(), in.Bytes(16).data(), 16);
  h.writer = in.Little<uint64_t>();
  h.sequence = in.Little<uint64_t>();
  h.min_txid = in.Little<uint64_t>();
  // Numbers that could wrap are no numbers of a history.
  if (h.sequence > INT64_MAX || h.min_txid > INT64_MAX) return Damaged("a number out of range in the header");
  if ((h.kind == SegmentKind::kIncrement || h.kind == SegmentKind::kSnapshot) && (h.flags & kSegmentFolded) == 0)
    return Damaged("a snapshot or increment that is not folded");
  return h;
}

std::string EncodeEnd(SegmentHeader header, int64_t wall_micros) {
  header.kind = SegmentKind::kEnd;
  header.flags = 0;
  SegmentTrailer trailer;
  trailer.max_txid = header.min_txid == 0 ? 0 : header.min_txid - 1;
  trailer.created = wall_micros;
  trailer.meta_offset = kSegmentHeaderSize;
  trailer.meta_hash = Hash64(std::string_view());
  std::string out = EncodeHeader(header);
  const std::string unhashed = out + EncodeTrailer(trailer).substr(0, kShaOffset);
  trailer.sha256 = Sha256::Of(unhashed);
  return out + EncodeTrailer(trailer);
}

std::string EncodeTrailer(const SegmentTrailer& t) {
  std::string out;
  AppendLittle<uint64_t>(out, t.max_txid);
  AppendLittle<uint64_t>(out, t.checksum_before);
  AppendLittle<uint64_t>(out, t.checksum_after);
  AppendLittle<uint32_t>(out, t.pages_before);
  AppendLittle<uint32_t>(out, t.pages_after);
  AppendLittle<uint64_t>(out, static_cast<uint64_t>(t.created));
  out.append(reinterpret_cast<const char*>(t.wal.salts.data()), t.wal.salts.size());
  AppendLittle<uint32_t>(out, t.wal.frame);
  AppendLittle<uint32_t>(out, t.wal.checksum[0]);
  AppendLittle<uint32_t>(out, t.wal.checksum[1]);
  AppendLittle<uint32_t>(out, t.block_count);
  AppendLittle<uint64_t>(out, t.version_count);
  AppendLittle<uint64_t>(out, t.commit_count);
  AppendLittle<uint64_t>(out, t.meta_offset);
  AppendLittle<uint64_t>(out, t.meta_stored);
  AppendLittle<uint64_t>(out, t.meta_raw);
  AppendLittle<uint64_t>(out, t.meta_hash);
  out.resize(kShaOffset, '\0');
  out.append(reinterpret_cast<const char*>(t.sha256.data()), t.sha256.size());
  AppendLittle<uint64_t>(out, Hash64(out));
  out.append(kEndMagic, sizeof kEndMagic);
  return out;
}

Result<SegmentTrailer> DecodeTrailer(std::string_view bytes) {
  if (bytes.size() != kSegmentTrailerSize) return Damaged("shorter than its trailer");
  if (std::memcmp(bytes.data() + bytes.size() - sizeof kEndMagic, kEndMagic, sizeof kEndMagic) != 0)
    return Damaged("its end is missing (truncated?)");
  if (Hash64(bytes.substr(0, kTrailerHashOffset)) != LoadLittle<uint64_t>(bytes.data() + kTrailerHashOffset))
    return Damaged("the trailer fails its checksum");
  ByteReader in(bytes);
  SegmentTrailer t;
  t.max_txid = in.Little<uint64_t>();
  t.checksum_before = in.Little<uint64_t>();
  t.checksum_after = in.Little<uint64_t>();
  t.pages_before = in.Little<uint32_t>();
  t.pages_after = in.Little<uint32_t>();
  t.created = static_cast<int64_t>(in.Little<uint64_t>());
  std::memcpy(t.wal.salts.data(), in.Bytes(8).data(), 8);
  t.wal.frame = in.Little<uint32_t>();
  t.wal.checksum[0] = in.Little<uint32_t>();
  t.wal.checksum[1] = in.Little<uint32_t>();
  t.block_count = in.Little<uint32_t>();
  t.version_count = in.Little<uint64_t>();
  t.commit_count = in.Little<uint64_t>();
  t.meta_offset = in.Little<uint64_t>();
  t.meta_stored = in.Little<uint64_t>();
  t.meta_raw = in.Little<uint64_t>();
  t.meta_hash = in.Little<uint64_t>();
  std::memcpy(t.sha256.data(), bytes.data() + kShaOffset, 32);
  // Each version takes at least a byte of the index, each block eleven, each commit ten: so these bound every
  // allocation.
  if (t.meta_stored > (1ULL << 40) || t.meta_raw > MetaLimit(t.meta_stored) || t.meta_offset < kSegmentHeaderSize ||
      t.meta_offset > (1ULL << 50) || t.version_count > t.meta_raw || t.block_count > t.meta_raw / 11 ||
      t.commit_count > t.meta_raw / 10 || t.max_txid > INT64_MAX)
    return Damaged("the trailer's sizes contradict each other");
  if (!ValidTime(t.created)) return Damaged("a time out of range in the trailer");
  if (t.version_count > kMaxVersions + t.meta_stored / 8 || t.block_count > kMaxBlocks ||
      t.commit_count > kMaxCommits ||
      t.meta_raw > 1024 + t.version_count * 20 + uint64_t{t.block_count} * 30 + t.commit_count * 30)
    return Damaged("the trailer asks for more memory than any segment needs");
  return t;
}

std::string EncodeMeta(const Segment& s) {
  std::string out;
  int64_t time = s.trailer.created;
  uint32_t pages = s.trailer.pages_before;
  for (const CommitEntry& c : s.commits) {
    AppendVarint(out, ZigZag(c.time - time));
    AppendVarint(out, ZigZag(int64_t{c.pages} - int64_t{pages}));
    time = c.time;
    pages = c.pages;
  }
  for (const CommitEntry& c : s.commits) AppendLittle<uint64_t>(out, c.checksum);
  for (const SegmentBlock& b : s.blocks) {
    AppendVarint(out, b.stored);
    AppendVarint(out, b.raw);
    AppendVarint(out, b.count);
    AppendLittle<uint64_t>(out, b.hash);
  }
  uint32_t page = 0;
  for (const PageVersion& v : s.versions) {
    AppendVarint(out, uint64_t{v.page - page} << 1 | (v.has_base ? 1 : 0));
    page = v.page;
  }
  if (!s.folded()) {
    page = 0;
    uint64_t txid = 0;
    for (const PageVersion& v : s.versions) {
      AppendVarint(out, v.txid - (v.page == page ? txid : s.header.min_txid));
      page = v.page;
      txid = v.txid;
    }
  }
  if ((s.header.flags & kSegmentPageHashes) != 0)
    for (const PageVersion& v : s.versions) AppendLittle<uint64_t>(out, v.hash);
  return out;
}

Status DecodeMeta(std::string_view raw, Segment* s) {
  const SegmentHeader& h = s->header;
  const SegmentTrailer& t = s->trailer;
  const bool folded = s->folded();
  if (raw.size() != t.meta_raw) return Damaged("the index is shorter than the trailer says");
  if (h.kind == SegmentKind::kEnd) return Damaged("the end of a log is no segment");
  if (h.min_txid < 1 || t.max_txid < h.min_txid)
    return Damaged("max TXID below min TXID, or TXIDs that do not count from 1");
  if ((h.flags & kSegmentPageHashes) == 0 && t.version_count > kMaxVersions)
    return Damaged("more versions than a segment without page hashes may have");
  if (t.commit_count != (folded ? 1 : t.max_txid - h.min_txid + 1))
    return Damaged("the number of commits does not fit the TXIDs");
  ByteReader in(raw);
  s->commits.resize(t.commit_count);
  int64_t time = t.created;
  int64_t pages = t.pages_before;
  uint32_t most_pages = t.pages_after;
  for (CommitEntry& c : s->commits) {
    time = static_cast<int64_t>(static_cast<uint64_t>(time) + static_cast<uint64_t>(UnZigZag(in.Varint())));
    if (!ValidTime(time)) return Damaged("a commit's time");
    int64_t delta = UnZigZag(in.Varint());
    if (delta < -INT64_C(0xffffffff) || delta > INT64_C(0xffffffff)) return Damaged("a commit's database size");
    pages += delta;
    if (pages < 1 || pages > INT64_C(0xfffffffe)) return Damaged("a commit's database size");
    c.time = time;
    c.pages = static_cast<uint32_t>(pages);
    most_pages = std::max(most_pages, c.pages);
  }
  for (CommitEntry& c : s->commits) c.checksum = in.Little<uint64_t>();
  if (!in.ok()) return Damaged("the commit table is cut short");
  if (s->commits.back().pages != t.pages_after || s->commits.back().checksum != t.checksum_after)
    return Damaged("the commit table does not end where the trailer says");

  s->blocks.resize(t.block_count);
  uint64_t offset = kSegmentHeaderSize;
  uint64_t first = 0;
  for (SegmentBlock& b : s->blocks) {
    b.offset = offset;
    b.first = first;
    b.stored = in.Varint();
    b.raw = in.Varint();
    b.count = in.Varint();
    b.hash = in.Little<uint64_t>();
    if (b.count == 0 || b.stored < kLeastFrame || b.raw > kBlockLimit || b.count > kBlockLimit / h.page_size ||
        b.raw != b.count * h.page_size || b.stored > kBlockLimit + kBlockLimit / 128 + 1024)
      return Damaged("a block's size");
    offset += b.stored;
    first += b.count;
  }
  if (!in.ok() || offset != t.meta_offset || first != t.version_count)
    return Damaged("the blocks do not add up to the segment");

  s->versions.resize(t.version_count);
  uint64_t page = 0;
  for (PageVersion& v : s->versions) {
    uint64_t code = in.Varint();
    page += code >> 1;
    if (page < 1 || page > most_pages || (folded && (code >> 1) == 0))
      return Damaged("a page number out of order or out of range");
    v.page = static_cast<uint32_t>(page);
    v.has_base = (code & 1) != 0;
    v.txid = t.max_txid;
  }
  if (!folded) {
    uint64_t txid = 0;
    page = 0;
    for (PageVersion& v : s->versions) {
      uint64_t delta = in.Varint();
      bool same = v.page == page;
      if (delta > t.max_txid - h.min_txid || (same && delta == 0)) return Damaged("a version's TXID is out of order");
      v.txid = delta + (same ? txid : h.min_txid);
      if (v.txid > t.max_txid) return Damaged("a version's TXID is out of range");
      page = v.page;
      txid = v.txid;
    }
  }
  if ((h.flags & kSegmentPageHashes) != 0)
    for (PageVersion& v : s->versions) v.hash = in.Little<uint64_t>();
  if (!in.ok() || in.remaining() != 0) return Damaged("the index is cut short or too long");
  for (const SegmentBlock& b : s->blocks) {
    for (uint64_t i = b.first + 1; i < b.first + b.count; i++)
      if (s->versions[i].has_base && s->versions[i].page == s->versions[i - 1].page)
        return Damaged("a later version of a page with a base of its own");
  }
  return Ok();
}

}  // namespace replica

// A segment: one object of a replica. What TXIDs [min, max] changed, and a table of those commits.
//
// The bytes are specified in docs/format.md; this header is the shape in memory and the checks that every reader makes
// before it trusts a length. Log segments, increments and snapshots share the format.
#ifndef LIBREPLICA_UPLOADER_SEGMENT_H_
#define LIBREPLICA_UPLOADER_SEGMENT_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace replica {

enum class SegmentKind : uint8_t { kLog = 1, kIncrement = 2, kSnapshot = 3, kEnd = 4 };

enum SegmentFlags : uint8_t {
  kSegmentFolded = 1,      // holds only the last version of each page; only max_txid is restorable
  kSegmentResync = 2,      // written by a page-hash difference, not from captured commits
  kSegmentPageHashes = 4,  // the index holds each version's page hash
};

// Where in a WAL a segment ends: the cumulative checksum makes it unmistakable. `salts` are the eight bytes of the WAL
// header, zero when the segment does not end at a known place of a WAL.
struct WalPosition {
  std::array<uint8_t, 8> salts{};
  uint32_t frame = 0;
  uint32_t checksum[2] = {0, 0};
  // Which WAL it is in the row of those that followed one another (vfs/wal_chain.h); the chain is 0 when that is not
  // known. Of this machine: the state file has them, segments do not.
  uint64_t chain = 0;
  uint32_t ordinal = 0;

  bool SameWal(const WalPosition& other) const { return salts == other.salts; }
  // In one word, as PackPosition (vfs/wal_format.h) has it.
  uint64_t Packed() const { return uint64_t{LoadBig32(salts.data())} << 32 | frame; }
};

struct CommitEntry {
  int64_t time = 0;       // wall clock, microseconds
  uint32_t pages = 0;     // database size after it
  uint64_t checksum = 0;  // database checksum after it
};

struct SegmentHeader {
  SegmentKind kind = SegmentKind::kLog;
  uint8_t flags = 0;
  uint32_t page_size = 4096;
  Id database{};
  Id generation{};
  uint64_t writer = 0;    // tells two replica folders that claim one history apart
  uint64_t sequence = 0;  // of a log segment, from 1; of a snapshot, the last log segment it already includes
  uint64_t min_txid = 0;
};

struct SegmentTrailer {
  uint64_t max_txid = 0;
  uint64_t checksum_before = 0;
  uint64_t checksum_after = 0;
  uint32_t pages_before = 0;
  uint32_t pages_after = 0;
  int64_t created = 0;  // wall clock, microseconds
  WalPosition wal;
  uint32_t block_count = 0;
  uint64_t version_count = 0;
  uint64_t commit_count = 0;
  uint64_t meta_offset = 0;
  uint64_t meta_stored = 0;
  uint64_t meta_raw = 0;
  uint64_t meta_hash = 0;
  std::array<uint8_t, 32> sha256{};
};

struct PageVersion {
  uint32_t page = 0;
  uint64_t txid = 0;
  bool has_base = false;  // the page's previous version is part of its block's prefix
  uint64_t hash = 0;      // only with kSegmentPageHashes
};

struct SegmentBlock {
  uint64_t offset = 0;  // in the object
  uint64_t stored = 0;  // bytes of the zstd frame
  uint64_t raw = 0;     // versions * page size
  uint64_t hash = 0;    // XXH3-64 of the stored bytes
  uint64_t first = 0;   // its first version, an index into Segment::versions
  uint64_t count = 0;
};

// All of a segment but the pages themselves.
struct Segment {
  SegmentHeader header;
  SegmentTrailer trailer;
  std::vector<CommitEntry> commits;  // of TXIDs min..max, or of max alone when folded
  std::vector<SegmentBlock> blocks;
  std::vector<PageVersion> versions;  // sorted by (page, txid)

  bool folded() const { return (header.flags & kSegmentFolded) != 0; }
  bool snapshot() const { return header.kind == SegmentKind::kSnapshot; }
  uint64_t size() const;  // bytes of the object
};

constexpr size_t kSegmentHeaderSize = 96;
constexpr size_t kSegmentTrailerSize = 200;
constexpr uint16_t kSegmentVersion = 1;
// Raw bytes a writer gathers in a block before it closes it, and the most that a reader accepts.
constexpr uint64_t kBlockTarget = uint64_t{256} * 1024;
constexpr uint64_t kBlockLimit = uint64_t{2} * 1024 * 1024;

// The object that ends a generation's log: header and trailer without anything in between. It stands where the next log
// segment would go, so that whoever still appends to the generation meets it. `header.sequence` is that number.
constexpr uint64_t kEndSize = kSegmentHeaderSize + kSegmentTrailerSize;
std::string EncodeEnd(SegmentHeader header, int64_t wall_micros);

std::string EncodeHeader(const SegmentHeader& header);
Result<SegmentHeader> DecodeHeader(std::string_view bytes);

// Everything but sha256 and the trailer's own hash, which SegmentWriter appends.
std::string EncodeTrailer(const SegmentTrailer& trailer);
Result<SegmentTrailer> DecodeTrailer(std::string_view bytes);

// The commit table and the index, uncompressed.
std::string EncodeMeta(const Segment& segment);
// Fills commits, blocks and versions; checks every count and order against header and trailer.
Status DecodeMeta(std::string_view raw, Segment* segment);

// The most bytes of uncompressed index that a writer may make of so many stored ones, and that a reader takes memory
// for.
uint64_t MetaLimit(uint64_t stored);
// The most that one object holds, whatever its index says; a reader's memory is bounded by it. An index with page
// hashes may have more versions: it has eight bytes of hash for each, which do not compress.
constexpr uint64_t kMaxVersions = 6000000;
constexpr uint64_t kMaxBlocks = 2000000;
constexpr uint64_t kMaxCommits = 4000000;
// Times of commits, and of segments, lie between -kMaxTime and kMaxTime: the difference of two does not wrap.
constexpr int64_t kMaxTime = INT64_MAX / 4;  // wall clock, microseconds
inline bool ValidTime(int64_t time) {
  return time >= -kMaxTime && time <= kMaxTime;
}

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SEGMENT_H_

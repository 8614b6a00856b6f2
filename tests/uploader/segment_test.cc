#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/temporary_folder.h"
#include "uploader/page_table.h"
#include "uploader/segment_reader.h"
#include "uploader/segment_writer.h"

namespace replica {
namespace {

// An object in memory, so that a test can damage it.
class MemoryBytes : public ObjectBytes {
 public:
  explicit MemoryBytes(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  Result<std::string> Read(uint64_t offset, uint64_t size) override {
    if (offset > bytes_.size() || size > bytes_.size() - offset) return Status(Code::kCorrupt, "short");
    return bytes_.substr(offset, size);
  }

 private:
  const std::string name_ = "memory";
  const std::string bytes_;
};

std::string RandomPage(std::mt19937_64* random, uint32_t size) {
  std::string page(size, '\0');
  for (size_t i = 0; i + 8 <= size; i += 8) StoreLittle<uint64_t>(page.data() + i, (*random)() & 0xff00ff);
  return page;
}

struct Made {
  std::string bytes;
  std::map<uint32_t, std::string> bases;
  std::map<std::pair<uint32_t, uint64_t>, std::string> versions;
};

// A log segment of `commits` commits over a few pages, each version a small change of the one before.
Made Make(uint32_t page_size, uint64_t commits, uint64_t seed) {
  Made made;
  std::mt19937_64 random(seed);
  std::map<uint32_t, std::string> now;
  for (uint32_t page = 1; page <= 40; page++) made.bases[page] = now[page] = RandomPage(&random, page_size);
  for (uint64_t txid = 5; txid < 5 + commits; txid++) {
    for (int i = 0; i < 3; i++) {
      const uint32_t page = 1 + static_cast<uint32_t>(random() % (i == 0 ? 2 : 40));
      now[page][random() % page_size] ^= 1;
      made.versions[{page, txid}] = now[page];
    }
  }
  TemporaryFolder folder;
  SegmentHeader header;
  header.page_size = page_size;
  header.database = {1, 2, 3};
  header.generation = {4, 5, 6};
  header.sequence = 9;
  header.min_txid = 5;
  auto writer = SegmentWriter::Create(folder.path() + "/s", header, {});
  EXPECT_TRUE(writer.ok());
  uint32_t last = 0;
  for (const auto& [key, page] : made.versions) {
    const bool base = key.first != last && key.first % 5 != 0;  // some pages without
    last = key.first;
    EXPECT_TRUE((*writer)
                    ->Add(key.first, key.second, reinterpret_cast<const uint8_t*>(page.data()),
                          base ? reinterpret_cast<const uint8_t*>(made.bases[key.first].data()) : nullptr, 0)
                    .ok());
  }
  SegmentTrailer trailer;
  trailer.max_txid = 4 + commits;
  trailer.pages_before = trailer.pages_after = 40;
  trailer.checksum_before = 7;
  trailer.checksum_after = commits;
  trailer.created = 1000000;
  std::vector<CommitEntry> table;
  for (uint64_t i = 1; i <= commits; i++) table.push_back({static_cast<int64_t>(1000000 + i), 40, i});
  auto encoded = (*writer)->Finish(trailer, table);
  EXPECT_TRUE(encoded.ok()) << encoded.status().message();
  made.bytes = *ReadFile(folder.path() + "/s", UINT64_MAX);
  EXPECT_EQ(made.bytes.size(), encoded->size);
  return made;
}

Status ReadBack(const Made& made, const std::string& bytes, std::map<std::pair<uint32_t, uint64_t>, std::string>* out) {
  MemoryBytes object(bytes);
  auto reader = SegmentReader::Open(&object);
  if (!reader.ok()) return reader.status();
  const uint32_t size = (*reader)->segment().header.page_size;
  REPLICA_TRY((*reader)->ReadAll(
      [&](uint32_t page, uint8_t* data) -> Status {
        auto base = made.bases.find(page);
        if (base == made.bases.end() || base->second.size() != size) return {Code::kCorrupt, "no such base"};
        std::copy(base->second.begin(), base->second.end(), data);
        return Ok();
      },
      [&](const PageVersion& v, const uint8_t* data) -> Status {
        (*out)[{v.page, v.txid}] = std::string(reinterpret_cast<const char*>(data), size);
        return Ok();
      }));
  return (*reader)->CheckSha256();
}

TEST(Segment, EveryVersionComesBack) {
  // 4096 versions of hot pages run over several blocks, so a page's versions are carried from block to block.
  for (uint32_t page_size : {512U, 4096U, 65536U}) {
    for (uint64_t commits : {UINT64_C(1), UINT64_C(7), UINT64_C(200)}) {
      const Made made = Make(page_size, commits, page_size + commits);
      std::map<std::pair<uint32_t, uint64_t>, std::string> read;
      Status status = ReadBack(made, made.bytes, &read);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(read, made.versions);
    }
  }
}

TEST(Segment, PrefixCodingTakesAFractionOfTheChangedPages) {
  const Made made = Make(4096, 200, 1);
  EXPECT_LT(made.bytes.size(), made.versions.size() * 4096 / 10);
}

// Invariant LetsNoOneIn: no damage to an object goes unnoticed or reads out of bounds.
TEST(Segment, Invariant_LetsNoOneIn_EveryDamagedByteIsNoticed) {
  const Made made = Make(512, 7, 3);
  for (size_t at = 0; at < made.bytes.size(); at++) {
    std::string damaged = made.bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x41);
    std::map<std::pair<uint32_t, uint64_t>, std::string> read;
    EXPECT_FALSE(ReadBack(made, damaged, &read).ok()) << "byte " << at;
  }
}

TEST(Segment, Invariant_LetsNoOneIn_EveryTruncationIsNoticed) {
  const Made made = Make(512, 3, 4);
  for (size_t size = 0; size < made.bytes.size(); size++) {
    std::map<std::pair<uint32_t, uint64_t>, std::string> read;
    EXPECT_FALSE(ReadBack(made, made.bytes.substr(0, size), &read).ok()) << size << " bytes";
  }
}

// The format's lengths are attacked with a valid checksum, as somebody who can write to the bucket could.
TEST(Segment, Invariant_LetsNoOneIn_ForgedLengthsTakeNoMemory) {
  SegmentTrailer trailer;
  trailer.max_txid = 10;
  trailer.meta_offset = kSegmentHeaderSize;
  trailer.meta_stored = 100;
  trailer.meta_raw = UINT64_C(1) << 60;
  EXPECT_EQ(DecodeTrailer(EncodeTrailer(trailer)).status().code(), Code::kCorrupt);
  trailer.meta_raw = 1000;
  trailer.version_count = UINT64_C(1) << 40;
  EXPECT_EQ(DecodeTrailer(EncodeTrailer(trailer)).status().code(), Code::kCorrupt);
  trailer.version_count = 10;
  trailer.block_count = 0xffffffff;
  EXPECT_EQ(DecodeTrailer(EncodeTrailer(trailer)).status().code(), Code::kCorrupt);
  trailer.block_count = 1;
  trailer.commit_count = UINT64_C(1) << 50;
  EXPECT_EQ(DecodeTrailer(EncodeTrailer(trailer)).status().code(), Code::kCorrupt);
}

// A segment of 305 bytes with TXIDs 0 to 2^64 - 1: their number wrapped to 0, and readers took the last of no commits.
TEST(Segment, Regression_NumbersThatWrapAreRefused) {
  SegmentHeader header;
  header.min_txid = UINT64_MAX;
  EXPECT_FALSE(DecodeHeader(EncodeHeader(header)).ok());
  header.min_txid = 1;
  header.sequence = UINT64_MAX;
  EXPECT_FALSE(DecodeHeader(EncodeHeader(header)).ok());
  SegmentTrailer trailer;
  trailer.meta_offset = kSegmentHeaderSize;
  trailer.max_txid = UINT64_MAX;
  EXPECT_FALSE(DecodeTrailer(EncodeTrailer(trailer)).ok());
  Segment segment;  // min TXID 0
  segment.trailer.max_txid = UINT64_MAX;
  EXPECT_FALSE(DecodeMeta("", &segment).ok());
  segment.trailer.max_txid = 0;
  EXPECT_FALSE(DecodeMeta("", &segment).ok());
  segment.header.kind = SegmentKind::kEnd;
  segment.header.min_txid = 1;
  EXPECT_FALSE(DecodeMeta("", &segment).ok());
}

// 1.4 MB of object took 2.1 GB of memory: an index that is all zeros compresses to nothing, and each of its bytes was a
// version of 32 bytes.
TEST(Segment, Regression_MoreVersionsThanAnyObjectHasAreRefusedUnread) {
  SegmentTrailer trailer;
  trailer.max_txid = 1;
  trailer.meta_offset = kSegmentHeaderSize;
  trailer.meta_stored = 1 << 20;
  trailer.meta_raw = 64 << 20;
  trailer.version_count = 64 << 20;
  EXPECT_FALSE(DecodeTrailer(EncodeTrailer(trailer)).ok());
  trailer.version_count = 1000;
  EXPECT_FALSE(DecodeTrailer(EncodeTrailer(trailer)).ok()) << "an index larger than its versions need";
  trailer.meta_raw = 20000;
  EXPECT_TRUE(DecodeTrailer(EncodeTrailer(trailer)).ok());
}

// An object of 512 GB that is not there (a sparse file, a store that lies): its index was allocated whole.
TEST(Segment, Regression_AnIndexThatIsNotThereTakesNoMemory) {
  class Sparse : public ObjectBytes {
   public:
    explicit Sparse(std::string head, std::string tail, uint64_t size)
        : head_(std::move(head)), tail_(std::move(tail)), size_(size) {}
    const std::string& name() const override { return name_; }
    uint64_t size() const override { return size_; }
    Result<std::string> Read(uint64_t offset, uint64_t size) override {
      most = std::max(most, size);
      if (offset == 0) return head_.substr(0, size);
      if (offset == size_ - tail_.size()) return tail_;
      return std::string(size, '\0');
    }
    uint64_t most = 0;

   private:
    const std::string name_ = "sparse";
    const std::string head_;
    const std::string tail_;
    const uint64_t size_;
  };
  SegmentHeader header;
  header.min_txid = 1;
  header.flags = kSegmentPageHashes;
  SegmentTrailer trailer;
  trailer.max_txid = 1;
  trailer.commit_count = 1;
  trailer.meta_offset = kSegmentHeaderSize;
  trailer.meta_stored = UINT64_C(1) << 39;
  trailer.version_count = UINT64_C(1) << 36;
  trailer.meta_raw = UINT64_C(10) << 36;
  Sparse object(EncodeHeader(header), EncodeTrailer(trailer),
                kSegmentHeaderSize + trailer.meta_stored + kSegmentTrailerSize);
  EXPECT_EQ(SegmentReader::Open(&object).status().code(), Code::kCorrupt);
  EXPECT_LE(object.most, 16U << 20);
}

TEST(Segment, ForgedIndexesAreRefused) {
  std::mt19937_64 random(11);
  Segment segment;
  segment.header.page_size = 512;
  segment.header.min_txid = 1;
  segment.trailer.max_txid = 1;
  segment.trailer.pages_after = 3;
  segment.trailer.commit_count = 1;
  segment.commits.push_back({0, 3, 0});
  segment.blocks.push_back({kSegmentHeaderSize, 50, 1024, 0, 0, 2});
  segment.versions.push_back({1, 1, false, 0});
  segment.versions.push_back({3, 1, false, 0});
  segment.trailer.block_count = 1;
  segment.trailer.version_count = 2;
  segment.trailer.meta_offset = kSegmentHeaderSize + 50;
  const std::string good = EncodeMeta(segment);
  segment.trailer.meta_raw = good.size();
  ASSERT_TRUE(DecodeMeta(good, &segment).ok());
  int refused = 0;
  for (int i = 0; i < 20000; i++) {
    std::string bad = good;
    for (int n = 0; n < 3; n++) bad[random() % bad.size()] = static_cast<char>(random());
    Segment read;
    read.header = segment.header;
    read.trailer = segment.trailer;
    if (!DecodeMeta(bad, &read).ok()) {
      refused++;
      continue;
    }
    for (const PageVersion& v : read.versions) EXPECT_TRUE(v.page >= 1 && v.page <= 3);
  }
  EXPECT_GT(refused, 10000);
}

// The first bytes of a segment are fixed for ever: docs/format.md shows this vector.
TEST(Segment, HeaderTestVector) {
  SegmentHeader header;
  header.kind = SegmentKind::kSnapshot;
  header.flags = kSegmentFolded | kSegmentPageHashes;
  header.page_size = 4096;
  for (uint8_t i = 0; i < 16; i++) {
    header.database[i] = i;
    header.generation[i] = static_cast<uint8_t>(0xf0 + i);
  }
  header.writer = 0x1122334455667788;
  header.sequence = 3;
  header.min_txid = 258;
  EXPECT_EQ(HexEncode(EncodeHeader(header).data(), kSegmentHeaderSize),
            "4c525345470d0a1a"
            "0100"
            "03"
            "05"
            "00100000"
            "000102030405060708090a0b0c0d0e0f"
            "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
            "8877665544332211"
            "0300000000000000"
            "0201000000000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000");
  EXPECT_EQ(DecodeHeader(EncodeHeader(header))->min_txid, 258U);
}

TEST(Segment, PageHashTestVector) {
  std::string page(512, '\0');
  for (size_t i = 0; i < page.size(); i++) page[i] = static_cast<char>(i);
  EXPECT_EQ(Hex16(PageHash(page.data(), 512, 1)), "0f3b8d192b389272");
  EXPECT_EQ(Hex16(ZeroPageHash(512, 2)), "bf6eaa6c73c0f547");
}

}  // namespace
}  // namespace replica

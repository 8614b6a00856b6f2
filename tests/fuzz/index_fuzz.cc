// The index of a segment by itself: header, trailer, then the unpacked index. What is taken has sizes within bounds,
// and written again it says the same.
#include "tests/fuzz/segment_parts.h"
#include "uploader/page_table.h"

namespace replica::fuzz {
namespace {

void CheckBounds(const Segment& s) {
  uint64_t versions = 0;
  uint64_t offset = kSegmentHeaderSize;
  for (const SegmentBlock& b : s.blocks) {
    Require(b.raw <= kBlockLimit && b.raw == b.count * s.header.page_size, "a block's size is within bounds");
    Require(b.offset == offset && b.first == versions && b.count != 0, "blocks lie one behind the other");
    offset += b.stored;
    versions += b.count;
  }
  Require(offset == s.trailer.meta_offset && versions == s.versions.size(), "blocks add up to the segment");
  uint32_t most = s.trailer.pages_after;
  for (const CommitEntry& c : s.commits) most = std::max(most, c.pages);
  for (const PageVersion& v : s.versions)
    Require(v.page >= 1 && v.page <= most && v.txid >= s.header.min_txid && v.txid <= s.trailer.max_txid,
            "pages and TXIDs are in range");
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string_view in = View(data, size);
  if (in.size() < kSegmentHeaderSize + kSegmentTrailerSize) return 0;
  const std::string_view raw = in.substr(kSegmentHeaderSize + kSegmentTrailerSize);
  std::string trailer_bytes(in.substr(kSegmentHeaderSize, kSegmentTrailerSize));
  StoreLittle<uint64_t>(trailer_bytes.data() + 96, raw.size());
  StoreTrailerHash(&trailer_bytes);
  auto header = DecodeHeader(in);
  auto trailer = DecodeTrailer(trailer_bytes);
  if (header.ok()) Require(DecodeHeader(EncodeHeader(*header)).ok(), "a header that is taken can be written again");
  if (trailer.ok()) Require(DecodeTrailer(EncodeTrailer(*trailer)).ok(), "so can a trailer");
  if (!header.ok() || !trailer.ok()) return 0;
  Segment s;
  s.header = *header;
  s.trailer = *trailer;
  if (!DecodeMeta(raw, &s).ok()) return 0;
  accepted = true;
  CheckBounds(s);
  // Numbers may be longer than they need be, so the bytes may differ; what they say may not.
  const std::string written = EncodeMeta(s);
  Require(written.size() <= raw.size(), "an index is written as short as can be");
  Segment again;
  again.header = s.header;
  again.trailer = s.trailer;
  again.trailer.meta_raw = written.size();
  Require(DecodeMeta(written, &again).ok() && EncodeMeta(again) == written, "an index written again is the same");
  return 0;
}

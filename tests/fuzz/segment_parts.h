// A segment as the segment target takes it: header, trailer, length of the index (4 bytes), raw index, stored blocks.
// Put together with right checksums, so that a fuzzer gets past them.
#ifndef LIBREPLICA_TESTS_FUZZ_SEGMENT_PARTS_H_
#define LIBREPLICA_TESTS_FUZZ_SEGMENT_PARTS_H_

#include <zstd.h>

#include "tests/fuzz/fuzz.h"
#include "uploader/segment.h"

namespace replica::fuzz {

inline std::string UnpackedIndex(const std::string& segment, const SegmentTrailer& trailer) {
  std::string index(trailer.meta_raw, '\0');
  const size_t size = ZSTD_decompress(index.data(), index.size(), segment.data() + trailer.meta_offset,
                                      static_cast<size_t>(trailer.meta_stored));
  Require(size == index.size(), "a segment of ours unpacks");
  return index;
}

inline void StoreTrailerHash(std::string* trailer) {
  StoreHash(trailer, trailer->size() - 16);
}

inline std::string TakeApart(const std::string& segment) {
  const std::string trailer = segment.substr(segment.size() - kSegmentTrailerSize);
  const auto decoded = DecodeTrailer(trailer);
  Require(decoded.ok(), "a segment of ours has a trailer");
  const std::string index = UnpackedIndex(segment, *decoded);
  std::string out = segment.substr(0, kSegmentHeaderSize) + trailer;
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(index.size()));
  return out + index + segment.substr(kSegmentHeaderSize, decoded->meta_offset - kSegmentHeaderSize);
}

// A whole segment again; empty when the input is too short.
inline std::string PutTogether(std::string_view in) {
  constexpr size_t kFixed = kSegmentHeaderSize + kSegmentTrailerSize + 4;
  if (in.size() < kFixed) return "";
  const std::string header(in.substr(0, kSegmentHeaderSize));
  std::string trailer(in.substr(kSegmentHeaderSize, kSegmentTrailerSize));
  const size_t length = std::min<size_t>(LoadLittle<uint32_t>(in.data() + kFixed - 4), in.size() - kFixed);
  std::string index(in.substr(kFixed, length));
  const std::string blocks(in.substr(kFixed + length));

  // Blocks get their right hashes where the index can be read at all; else it stays as it is.
  StoreTrailerHash(&trailer);
  Segment s;
  auto decoded_header = DecodeHeader(header);
  auto decoded_trailer = DecodeTrailer(trailer);
  if (decoded_header.ok() && decoded_trailer.ok()) {
    s.header = *decoded_header;
    s.trailer = *decoded_trailer;
    if (DecodeMeta(index, &s).ok()) {
      uint64_t at = 0;
      for (SegmentBlock& block : s.blocks) {
        if (block.stored > blocks.size() - at) break;
        block.hash = Hash64(std::string_view(blocks).substr(at, block.stored));
        at += block.stored;
      }
      index = EncodeMeta(s);
    }
  }
  std::string stored(ZSTD_compressBound(index.size()), '\0');
  stored.resize(ZSTD_compress(stored.data(), stored.size(), index.data(), index.size(), 1));
  StoreLittle<uint64_t>(trailer.data() + 80, header.size() + blocks.size());
  StoreLittle<uint64_t>(trailer.data() + 88, stored.size());
  StoreLittle<uint64_t>(trailer.data() + 96, index.size());
  StoreLittle<uint64_t>(trailer.data() + 104, Hash64(stored));
  StoreTrailerHash(&trailer);
  return header + blocks + stored + trailer;
}

}  // namespace replica::fuzz

#endif  // LIBREPLICA_TESTS_FUZZ_SEGMENT_PARTS_H_

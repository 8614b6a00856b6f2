// Invariant_LetsNoOneIn: hostile segments. libFuzzer's input is the parts of a segment (header, trailer, raw index,
// stored blocks); they are put together with right checksums, so that the fuzzer gets past them, and read in full.
//
//   segment_fuzz make-corpus FOLDER     writes valid segments to start from
//   segment_fuzz FOLDER [libFuzzer's options]
#include <zstd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/hash.h"
#include "uploader/page_table.h"
#include "uploader/segment_reader.h"
#include "uploader/segment_writer.h"

namespace {

using replica::Segment;
using replica::Status;

class MemoryBytes : public replica::ObjectBytes {
 public:
  explicit MemoryBytes(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return bytes_.size(); }
  replica::Result<std::string> Read(uint64_t offset, uint64_t size) override {
    if (offset > bytes_.size() || size > bytes_.size() - offset) return Status(replica::Code::kCorrupt, "short");
    return bytes_.substr(offset, size);
  }

 private:
  const std::string name_ = "memory";
  const std::string bytes_;
};

// The parts of a segment in the order of the fuzzer's input.
std::string TakeApart(const std::string& bytes) {
  const std::string trailer_bytes = bytes.substr(bytes.size() - replica::kSegmentTrailerSize);
  auto trailer = replica::DecodeTrailer(trailer_bytes);
  if (!trailer.ok()) std::abort();
  std::string index(trailer->meta_raw, '\0');
  if (ZSTD_decompress(index.data(), index.size(), bytes.data() + trailer->meta_offset, trailer->meta_stored) !=
      index.size())
    std::abort();
  std::string out = bytes.substr(0, replica::kSegmentHeaderSize) + trailer_bytes;
  replica::AppendLittle<uint32_t>(out, static_cast<uint32_t>(index.size()));
  const size_t blocks = replica::kSegmentHeaderSize;
  return out + index + bytes.substr(blocks, trailer->meta_offset - blocks);
}

void StoreHash(std::string* trailer) {
  const size_t at = trailer->size() - 16;
  replica::StoreLittle<uint64_t>(trailer->data() + at, replica::Hash64(std::string_view(*trailer).substr(0, at)));
}

// A whole segment again; empty when the input is too short.
std::string PutTogether(std::string_view in) {
  constexpr size_t kFixed = replica::kSegmentHeaderSize + replica::kSegmentTrailerSize + 4;
  if (in.size() < kFixed) return "";
  const std::string header(in.substr(0, replica::kSegmentHeaderSize));
  std::string trailer(in.substr(replica::kSegmentHeaderSize, replica::kSegmentTrailerSize));
  const size_t length = std::min<size_t>(replica::LoadLittle<uint32_t>(in.data() + kFixed - 4), in.size() - kFixed);
  std::string index(in.substr(kFixed, length));
  const std::string blocks(in.substr(kFixed + length));

  // Blocks get their right hashes where the index can be read at all; else it stays as it is.
  StoreHash(&trailer);
  Segment s;
  auto decoded_header = replica::DecodeHeader(header);
  auto decoded_trailer = replica::DecodeTrailer(trailer);
  if (decoded_header.ok() && decoded_trailer.ok()) {
    s.header = *decoded_header;
    s.trailer = *decoded_trailer;
    if (replica::DecodeMeta(index, &s).ok()) {
      uint64_t at = 0;
      for (replica::SegmentBlock& block : s.blocks) {
        if (block.stored > blocks.size() - at) break;
        block.hash = replica::Hash64(std::string_view(blocks).substr(at, block.stored));
        at += block.stored;
      }
      index = replica::EncodeMeta(s);
    }
  }
  std::string stored(ZSTD_compressBound(index.size()), '\0');
  stored.resize(ZSTD_compress(stored.data(), stored.size(), index.data(), index.size(), 1));
  replica::StoreLittle<uint64_t>(trailer.data() + 80, header.size() + blocks.size());
  replica::StoreLittle<uint64_t>(trailer.data() + 88, stored.size());
  replica::StoreLittle<uint64_t>(trailer.data() + 96, index.size());
  replica::StoreLittle<uint64_t>(trailer.data() + 104, replica::Hash64(stored));
  StoreHash(&trailer);
  return header + blocks + stored + trailer;
}

Status ReadWhole(const std::string& bytes) {
  MemoryBytes object(bytes);
  REPLICA_ASSIGN(auto reader, replica::SegmentReader::Open(&object));
  const uint32_t size = reader->segment().header.page_size;
  uint64_t sum = 0;
  return reader->ReadAll(
      [&](uint32_t page, uint8_t* out) {
        std::fill(out, out + size, static_cast<uint8_t>(page));
        return replica::Ok();
      },
      [&](const replica::PageVersion& version, const uint8_t* data) {
        sum ^= replica::PageHash(data, size, version.page);
        return replica::Ok();
      });
}

void MakeCorpus(const std::string& folder) {
  for (uint32_t kind = 0; kind < 6; kind++) {
    replica::SegmentHeader header;
    header.page_size = kind % 2 == 0 ? 512 : 4096;
    header.min_txid = 7;
    if (kind >= 4) {
      header.kind = replica::SegmentKind::kSnapshot;
      header.flags = replica::kSegmentFolded | replica::kSegmentPageHashes;
    } else if (kind >= 2) {
      header.flags = replica::kSegmentFolded;
    }
    const bool folded = kind >= 2;
    replica::SegmentWriter::Options options;
    options.block = 8192;
    const std::string path = folder + "/segment";
    auto writer = replica::SegmentWriter::Create(path, header, options);
    if (!writer.ok()) std::abort();
    std::string page(header.page_size, 'p');
    std::string base(header.page_size, 'b');
    for (uint32_t number = 1; number <= 20; number++) {
      for (uint64_t txid = folded ? 9 : 7; txid <= 9; txid++) {
        page[number % page.size()]++;
        const auto* data = reinterpret_cast<const uint8_t*>(page.data());
        if (!(*writer)
                 ->Add(number, txid, data, folded ? nullptr : reinterpret_cast<const uint8_t*>(base.data()),
                       replica::PageHash(data, header.page_size, number))
                 .ok())
          std::abort();
      }
    }
    replica::SegmentTrailer trailer;
    trailer.max_txid = 9;
    trailer.pages_before = trailer.pages_after = 20;
    std::vector<replica::CommitEntry> commits(folded ? 1 : 3);
    for (auto& commit : commits) commit.pages = 20;
    auto encoded = (*writer)->Finish(trailer, commits);
    if (!encoded.ok()) std::abort();
    const std::string bytes = *replica::ReadFile(path, UINT64_MAX);
    const std::string parts = TakeApart(bytes);
    // The harness itself: what was taken apart reads as what it was.
    const Status status = ReadWhole(PutTogether(parts));
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      std::abort();
    }
    if (!replica::ReplaceFile(folder + "/seed-" + std::to_string(kind), parts, false).ok()) std::abort();
    if (!replica::RemoveFile(path).ok()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc == 3 && std::string((*argv)[1]) == "make-corpus") {
    MakeCorpus((*argv)[2]);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes = PutTogether({reinterpret_cast<const char*>(data), size});
  if (!bytes.empty()) (void)ReadWhole(bytes);
  return 0;
}

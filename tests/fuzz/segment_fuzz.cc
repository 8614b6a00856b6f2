// Invariant_LetsNoOneIn: hostile segments, read in full as a restore reads them.
#include "tests/fuzz/segment_parts.h"
#include "uploader/page_table.h"
#include "uploader/segment_reader.h"

namespace replica::fuzz {
namespace {

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

Status ReadWhole(const std::string& bytes) {
  MemoryBytes object(bytes);
  REPLICA_ASSIGN(auto reader, SegmentReader::Open(&object));
  const Segment& s = reader->segment();
  const uint32_t size = s.header.page_size;
  Require(s.size() == bytes.size(), "a segment that is taken is as long as it says");
  uint64_t seen = 0;
  PageVersion before;
  REPLICA_TRY(reader->ReadAll(
      [&](uint32_t page, uint8_t* out) {
        std::fill(out, out + size, static_cast<uint8_t>(page));
        return Ok();
      },
      [&](const PageVersion& version, const uint8_t* data) {
        Require(version.page > before.page || (version.page == before.page && version.txid > before.txid),
                "versions come by page and TXID");
        Require(version.txid >= s.header.min_txid && version.txid <= s.trailer.max_txid, "TXIDs are the segment's");
        (void)PageHash(data, size, version.page);
        before = version;
        seen++;
        return Ok();
      }));
  Require(seen == s.trailer.version_count, "each version is read once");
  accepted = true;
  return Ok();
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string bytes = PutTogether(View(data, size));
  if (!bytes.empty()) (void)ReadWhole(bytes);
  return 0;
}

// Writes the seeds that are not text, with the product's own encoders:  fuzz_seeds tests/fuzz/corpus
#include "base/control_block.h"
#include "tests/fuzz/segment_parts.h"
#include "tests/fuzz/state_parts.h"
#include "uploader/segment_writer.h"
#include "vfs/database.h"

namespace replica::fuzz {
namespace {

void Save(const std::string& folder, const std::string& name, const std::string& bytes) {
  Require(MakeFolders(folder).ok() && ReplaceFile(folder + "/" + name, bytes, false).ok(), "a seed can be written");
}

std::string MakeSegment(SegmentHeader header) {
  header.min_txid = 7;
  const bool folded = (header.flags & kSegmentFolded) != 0;
  SegmentWriter::Options options;
  options.block = 2048;
  const std::string path = Folder() + "/segment";
  auto writer = SegmentWriter::Create(path, header, options);
  Require(writer.ok(), "a segment can be written");
  std::string page(header.page_size, 'p');
  const std::string base(header.page_size, 'b');
  for (uint32_t number = 1; number <= 5; number++) {
    for (uint64_t txid = folded ? 9 : 7; txid <= 9; txid++) {
      page[number % page.size()]++;
      const auto* data = reinterpret_cast<const uint8_t*>(page.data());
      const auto* before = folded ? nullptr : reinterpret_cast<const uint8_t*>(base.data());
      Require((*writer)->Add(number, txid, data, before, Hash64(page)).ok(), "a page can be written");
    }
  }
  SegmentTrailer trailer;
  trailer.max_txid = 9;
  trailer.pages_before = trailer.pages_after = 5;
  std::vector<CommitEntry> commits(folded ? 1 : 3);
  for (CommitEntry& commit : commits) commit.pages = 5;
  Require((*writer)->Finish(trailer, commits).ok(), "a segment can be ended");
  return ReadFile(path, UINT64_MAX).value();
}

void MakeSegments(const std::string& corpus) {
  for (const bool snapshot : {false, true}) {
    for (const uint32_t page_size : {512, 4096}) {
      SegmentHeader header;
      header.page_size = page_size;
      if (snapshot) {
        header.kind = SegmentKind::kSnapshot;
        header.flags = kSegmentFolded | kSegmentPageHashes;
      }
      const std::string segment = MakeSegment(header);
      const std::string name = std::string("valid-") + (snapshot ? "snapshot-" : "log-") + std::to_string(page_size);
      Save(corpus + "/segment", name, TakeApart(segment));
      const std::string trailer = segment.substr(segment.size() - kSegmentTrailerSize);
      Save(corpus + "/index", name,
           segment.substr(0, kSegmentHeaderSize) + trailer + UnpackedIndex(segment, DecodeTrailer(trailer).value()));
    }
  }
}

void MakeStates(const std::string& corpus) {
  StateFile file(Folder());
  PageTable table(512);
  table.Resize(4);
  for (uint32_t page = 1; page <= 4; page++) table.Set(page, page * 7919);
  EngineState state;
  state.page_size = 512;
  state.txid = 5;
  state.checksum = table.checksum();
  state.wal.chain = 3;
  state.stamp = {1, 2, 3, 4, 5};
  state.url = "file:///var/backups/app";
  auto input = [](const std::string& bytes) { return Part(StatePart(bytes)) + bytes.substr(kStateHeader); };
  auto file_now = [&](const char* name) { return ReadFile(Folder() + name, UINT64_MAX).value(); };
  Require(file.SaveAll(&state, table).ok(), "a state can be saved");
  const std::string before = input(file_now("/state"));
  Save(corpus + "/state", "valid-four-pages", before);
  table.Begin();
  table.Resize(5);
  table.Set(2, 1);
  state.checksum = table.checksum();
  Require(file.Save(&state, table, table.Changed()).ok(), "a state can be saved");
  std::string redo = input(file_now("/state-redo"));
  redo.resize(redo.size() - 8);
  Save(corpus + "/redo", "valid-one-page-more", Part(before) + redo);
  Save(corpus + "/redo", "alone", Part("") + redo);
  state.partial = true;
  state.url = std::string(3000, 'x');
  Require(file.SaveAll(&state, table).ok(), "a state can be saved");
  std::string bytes = file_now("/state");
  Save(corpus + "/state", "valid-partial-long-url", input(bytes));
  StoreLittle<uint32_t>(bytes.data() + bytes.find("xxx") - 4, 2049);  // what is saved again would be shorter
  Save(corpus + "/state", "url-too-long", input(bytes));
}

void MakeJournals(const std::string& corpus) {
  JournalChunk chunk;
  chunk.page_size = 512;
  chunk.first = 1;
  chunk.count = 2;
  chunk.at_end = true;
  std::string frames(chunk.bytes(), 'f');
  for (uint32_t i = 0; i < chunk.count; i++) {
    char* frame = frames.data() + i * (chunk.page_size + kFrameHeaderSize);
    std::memset(frame, 0, kFrameHeaderSize);
    StoreBig32(frame, i + 1);
    StoreBig32(frame + 4, i + 1 == chunk.count ? 2 : 0);
  }
  const std::string first = EncodeChunk(chunk) + frames;
  Save(corpus + "/journal", "valid-one-chunk", '\0' + first);
  chunk.first = 3;
  const std::string second = EncodeChunk(chunk) + frames;
  Save(corpus + "/journal", "valid-two-chunks", '\0' + first + second);
  Save(corpus + "/journal", "valid-part-is-captured", '\2' + first + second);
  chunk.salts.fill(1);
  chunk.first = 1;
  chunk.chain = 5;
  Save(corpus + "/journal", "another-wal", '\0' + EncodeChunk(chunk) + frames);
  chunk.first = UINT32_MAX;
  Save(corpus + "/journal", "frames-that-wrap", '\0' + EncodeChunk(chunk) + frames);
  chunk.first = 1;
  chunk.page_size = 0;
  Save(corpus + "/journal", "no-page-size", '\0' + EncodeChunk(chunk) + frames);
}

void MakeControlBlocks(const std::string& corpus) {
  auto opened = ControlMapping::Open(Folder());
  Require(opened.ok(), "a control block can be made");
  StoreText(&(*opened)->block()->url, "file:///var/backups/app");
  std::string bytes = ReadFile(Folder() + "/control", UINT64_MAX).value();
  bytes.resize(bytes.find_last_not_of('\0') + 1);
  std::memset(bytes.data() + 8, 0, 8);  // of this start of the machine
  Save(corpus + "/control", "valid-url", '\3' + bytes);
  Save(corpus + "/control", "short", '\1' + bytes);
  Save(corpus + "/control", "another-start", '\2' + bytes);
}

}  // namespace
}  // namespace replica::fuzz

int main(int argc, char** argv) {
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  Require(argc == 2, "usage: fuzz_seeds FOLDER");
  const std::string corpus = argv[1];
  MakeSegments(corpus);
  MakeStates(corpus);
  MakeJournals(corpus);
  MakeControlBlocks(corpus);
  return 0;
}

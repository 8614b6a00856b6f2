// A journal file as a leader finds it when it starts, and reads it before the WAL. Each chunk gets its right hash, and
// the live WAL's salts where it has zeros. The first byte: the frame in that WAL that is captured already.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/journal_database.h"
#include "uploader/page_table.h"
#include "vfs/wal_source.h"

namespace replica::fuzz {
namespace {

std::shared_ptr<Database> MakeDatabase() {
  const std::string path = Folder() + "/a.db";
  Require(OpenApplication(path), "the target can make a database");
  auto database = Database::Create(path);
  Require(database.ok(), "the target can make a replica folder");
  (*database)->control()->journal_index.store(2);
  return *database;
}

// Right hashes, as far as chunk follows on chunk.
std::string Journal(std::string_view in, const WalSalts& salts) {
  std::string out(in);
  for (size_t at = 0; out.size() - at >= kJournalChunkSize;) {
    std::string head = out.substr(at, kJournalChunkSize);
    if (std::all_of(head.begin() + 8, head.begin() + 16, [](char c) { return c == 0; }))
      std::copy(salts.begin(), salts.end(), head.begin() + 8);
    StoreHash(&head, kJournalChunkSize - 8);
    out.replace(at, head.size(), head);
    JournalChunk chunk;
    if (!DecodeChunk(head, &chunk)) break;
    Require(chunk.first >= 1 && chunk.count >= 1 && chunk.first + chunk.count > chunk.first,
            "a chunk has frames, and their numbers do not wrap");
    Require(ValidPageSize(chunk.page_size), "a chunk has pages");
    JournalChunk again;
    Require(DecodeChunk(EncodeChunk(chunk), &again) && EncodeChunk(again) == EncodeChunk(chunk),
            "a chunk written again is the same");
    if (chunk.bytes() > out.size() - at - kJournalChunkSize) break;
    at += kJournalChunkSize + chunk.bytes();
  }
  return out;
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  static const std::shared_ptr<Database> database = MakeDatabase();
  static const std::string wal = ReadFile(database->wal_path(), UINT64_MAX).value();
  if (size == 0) return 0;
  WalPosition position;
  std::copy_n(wal.begin() + 16, position.salts.size(), position.salts.begin());
  position.frame = data[0];
  WriteFile(database->spool_folder() + "/journal-0000000000000001", Journal(View(data + 1, size - 1), position.salts));
  auto source = WalSource::Open(database, false);
  Require(source.ok(), "a leader can start");
  (*source)->SetPosition(position);
  auto batch = (*source)->Collect(uint64_t{64} << 20, nullptr);
  if (!batch.ok()) return 0;
  accepted = !batch->commits.empty();
  size_t frames = 0;
  std::string scratch;
  for (const BatchCommit& commit : batch->commits) {
    Require(commit.first == frames && commit.count != 0 && commit.pages != 0, "commits lie one behind the other");
    frames += commit.count;
  }
  Require(frames == batch->frames.size(), "each frame belongs to a commit");
  for (size_t i = 0; i < batch->frames.size(); i++)
    Require(batch->frames[i].page != 0 && batch->Page(i, &scratch).ok(), "each frame is there");
  return 0;
}

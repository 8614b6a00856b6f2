// The redo beside the state file: a state file as in state_fuzz.cc, as a part (empty: there is none), then the redo's
// header as a part, then the page hashes that changed, without the hash behind them.
#include "tests/fuzz/state_parts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  std::string_view in = View(data, size);
  std::string_view state = TakePart(&in);
  const std::string redo_header = StateHeader(TakePart(&in));
  Require(RemoveFile(Folder() + "/state").ok(), "the target can remove its file");
  size_t hashes = 0;
  if (!state.empty()) {
    const std::string header = StateHeader(TakePart(&state));
    hashes = state.size() / 8;
    WriteFile(Folder() + "/state", header + std::string(state));
  }
  std::string body(in);
  body.resize(in.size() + 8);
  StoreHash(&body, in.size());
  WriteFile(Folder() + "/state-redo", redo_header + body);

  StateFile file(Folder());
  PageTable table;
  bool table_valid = false;
  auto loaded = file.Load(&table, &table_valid);
  Require(loaded.ok(), "a damaged redo counts as none");
  if (!loaded->has_value() || !table_valid) return 0;
  accepted = true;
  Require(table.pages() == (*loaded)->pages && table.pages() <= hashes + in.size() / 12,
          "each page has its hash in one of the files");
  Require((*loaded)->partial || table.checksum() == (*loaded)->checksum, "the hashes add up");
  auto again = file.LoadHeader();
  Require(again.has_value() && Same(*again, **loaded), "what a crash kept from the file is in it now");
  return 0;
}

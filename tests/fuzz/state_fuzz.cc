// The state file: the header without the zeros at its end, as a part, then the page hashes.
#include "tests/fuzz/state_parts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  std::string_view in = View(data, size);
  const std::string header = StateHeader(TakePart(&in));
  WriteFile(Folder() + "/state", header + std::string(in));
  StateFile file(Folder());
  PageTable table;
  bool table_valid = false;
  auto loaded = file.Load(&table, &table_valid);
  Require(loaded.ok(), "a damaged state counts as none");
  if (!loaded->has_value()) return 0;
  EngineState state = **loaded;
  accepted = true;
  if (table_valid) {
    Require(table.pages() == state.pages && table.pages() <= in.size() / 8, "each page has its hash in the file");
    Require(state.partial || table.checksum() == state.checksum, "the hashes add up");
  }
  Require(file.SaveAll(&state, table).ok(), "a state that is taken can be saved");
  auto again = file.LoadHeader();
  Require(again.has_value() && Same(*again, state), "a state saved again is the same");
  return 0;
}

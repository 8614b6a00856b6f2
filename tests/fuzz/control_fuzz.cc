// The control block of a replica folder, as somebody else left it. The first byte: 1, the magic and the start of the
// machine are right; 2, the size is.
#include "base/control_block.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  static const std::string fresh = [] {
    Require(ControlMapping::Open(Folder()).ok(), "the target can make a control block");
    return ReadFile(Folder() + "/control", UINT64_MAX).value();
  }();
  if (size == 0) return 0;
  std::string bytes(View(data + 1, size - 1));
  if ((data[0] & 2) != 0) bytes.resize(fresh.size());
  if ((data[0] & 1) != 0) bytes.replace(0, std::min<size_t>(bytes.size(), 16), fresh, 0, 16);
  WriteFile(Folder() + "/control", bytes);
  {
    auto opened = ControlMapping::OpenExisting(Folder());
    Require(!opened.ok() || (bytes.size() == fresh.size() && bytes.compare(0, 16, fresh, 0, 16) == 0),
            "a block of another size, version or start of the machine is not mapped");
    if (opened.ok()) {
      accepted = true;
      ControlBlock* block = (*opened)->block();
      for (ControlBlock::Text* text : {&block->url, &block->last_error}) {
        Require(LoadText(*text).size() <= sizeof text->words, "a text is within the block");
        StoreText(text, "what a leader writes");
        Require(LoadText(*text) == "what a leader writes", "a text that is stored comes back");
      }
      Require(StateName(static_cast<ReplicaState>(block->state.load())) != nullptr, "each state has a name");
      block->put_time.Observe(1000);
      WakeLeader(block);
      NotifyWaiters(block);
    }
  }
  // Whatever lies there, whoever opens the database next has a block.
  auto opened = ControlMapping::Open(Folder());
  Require(opened.ok() || opened.status().code() == Code::kUnavailable, "a worthless block is replaced");
  return 0;
}

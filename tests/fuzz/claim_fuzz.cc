// The claim at a replica's URL.
#include "tests/fuzz/fuzz.h"
#include "uploader/claim.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string text(View(data, size));
  const Claim claim = ParseClaim(text);
  Require(claim.any, "whatever lies there, the place is claimed");
  Require(claim.text.size() <= text.size(), "what people see is no longer than the claim");
  Require(std::none_of(claim.text.begin(), claim.text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }),
          "what people see has no control characters");
  accepted = !claim.path.empty();
  if (claim.path.empty()) {
    Require(claim.identity == 0 && claim.host.empty(), "half a claim names nobody");
    return 0;
  }
  const std::string written = FormatClaim(claim.identity, claim.path, claim.host);
  Require(written == text || written == text + "\n", "a claim written again is the same");
  return 0;
}

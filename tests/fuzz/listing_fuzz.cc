// The pages of a listing of a bucket, with "<?next?>" between them.
#include "tests/fuzz/fuzz.h"
#include "uploader/s3_listing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  constexpr std::string_view kNext = "<?next?>";
  std::string_view in = View(data, size);
  S3Lister lister("s3://bucket/app", "app/");
  size_t pages = 0;
  while (!lister.done()) {
    const size_t end = std::min(in.find(kNext), in.size());
    if (!lister.Take(in.substr(0, end)).ok()) return 0;
    pages++;
    if (end == in.size()) break;
    in.remove_prefix(end + kNext.size());
  }
  const bool done = lister.done();
  Require(done || !lister.token().empty(), "a listing that goes on says where");
  const Listing listing = lister.Finish();
  const size_t entries = listing.objects.size() + listing.folders.size();
  Require(pages <= 17 * (1 + entries), "a listing that brings nothing comes to an end");
  for (size_t i = 1; i < listing.objects.size(); i++)
    Require(listing.objects[i - 1].key < listing.objects[i].key, "keys are in order, each once");
  for (size_t i = 0; i < listing.folders.size(); i++) {
    Require(!listing.folders[i].empty() && listing.folders[i].back() == '/', "a folder ends in a slash");
    Require(i == 0 || listing.folders[i - 1] < listing.folders[i], "folders are in order, each once");
  }
  accepted = done && entries != 0;
  return 0;
}

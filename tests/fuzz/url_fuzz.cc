// A replica's URL, plain and in Litestream's forms.
#include "config/litestream_url.h"
#include "config/parse.h"
#include "tests/fuzz/fuzz.h"

namespace replica::fuzz {
namespace {

std::string Written(const ReplicaUrl& url) {
  if (url.kind == ReplicaUrl::kFile) return "file://" + url.folder;
  return "s3://" + url.bucket + (url.prefix.empty() ? "" : "/" + url.prefix);
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string text(View(data, size));
  if (auto form = ParseLitestreamUrl(text); form.ok()) {
    auto again = ParseLitestreamUrl(form->url);
    Require(size > kLongestUrl || (again.ok() && again->settings.empty()) || form->url == text || again.ok(),
            "what is left of a URL is a URL");
  }
  auto url = ParseUrl(text);
  if (!url.ok()) {
    Require(url.status().code() == Code::kInvalidArgument, "a wrong URL is an invalid argument");
    return 0;
  }
  accepted = true;
  const std::string written = Written(*url);
  auto again = ParseUrl(written);
  Require(again.ok() && again->kind == url->kind && Written(*again) == written, "a URL written again is the same");
  return 0;
}

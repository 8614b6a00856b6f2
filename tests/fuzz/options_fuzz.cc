// The options of replica_attach, as JSON.
#include "config/settings.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  AttachOptions options;
  options.s3.endpoint = "https://configured.example.com";
  options.s3.access_key_id = "configured";
  const Status status = ApplyJson(std::string(View(data, size)), &options);
  if (!status.ok()) {
    Require(status.code() == Code::kInvalidArgument, "a wrong option is an invalid argument");
    return 0;
  }
  accepted = true;
  Require(options.s3.endpoint == "https://configured.example.com" || options.s3.access_key_id != "configured",
          "no configured key goes to another server");
  const std::string written = OptionsAsJson(options);
  AttachOptions again;
  Require(ApplyJson(written, &again).ok() && OptionsAsJson(again) == written, "options written again are the same");
  return 0;
}

// What a store says when it refuses: the message is for people, in a log. The first two bytes are the HTTP status, then
// the header x-amz-bucket-region with its length, then the body.
#include "tests/fuzz/fuzz.h"
#include "uploader/s3_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  static const S3Options options = [] {
    S3Options o;
    o.bucket = "bucket";
    o.region = "eu-west-1";
    o.endpoint = "https://s3.example.com";
    o.access_key_id = "keyid7";
    o.secret_access_key = "secret8";
    o.session_token = "token9";
    return o;
  }();
  std::string_view in = View(data, size);
  if (in.size() < 2) return 0;
  HttpResponse response;
  response.status = 100 + LoadLittle<uint16_t>(in.data()) % 500;
  in.remove_prefix(2);
  if (const std::string_view region = TakePart(&in); !region.empty()) response.headers["x-amz-bucket-region"] = region;
  response.body = in;
  const Status status = S3Error(response, "GET", "s3://bucket/claim", options);
  Require(!status.ok(), "a refusal is an error");
  const std::string& message = status.message();
  for (const std::string& secret : {options.access_key_id, options.secret_access_key, options.session_token})
    Require(message.find(secret) == std::string::npos, "no message holds a secret");
  Require(message.size() < 1000, "a message is bounded");
  Require(std::none_of(message.begin(), message.end(),
                       [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }),
          "a message has no control characters");
  accepted = message.find('(') != std::string::npos;  // the store's own words were found
  return 0;
}

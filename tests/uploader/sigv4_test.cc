// The signature against Amazon's published examples, and what they do not show.
#include "uploader/sigv4.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/sha256.h"

namespace replica {
namespace {

std::string HexSha256(const std::string& text) {
  const Sha256::Digest digest = Sha256::Of(text);
  return HexEncode(digest.data(), digest.size());
}

int64_t At(const std::string& text) {
  int64_t micros = 0;
  EXPECT_TRUE(ParseTime(text, &micros));
  return micros;
}

std::string ValueOf(const std::vector<std::string>& headers, const std::string& name) {
  for (const std::string& header : headers)
    if (header.rfind(name + ": ", 0) == 0) return header.substr(name.size() + 2);
  return "(none)";
}

std::string Part(const std::string& authorization, const std::string& name) {
  const size_t at = authorization.find(name + "=");
  if (at == std::string::npos) return "(none)";
  const size_t value = at + name.size() + 1;
  return authorization.substr(value, authorization.find(',', value) - value);
}

// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, "Examples: Signature Calculations".
class SigV4 : public testing::Test {
 protected:
  SigV4() {
    request_.method = "GET";
    request_.host = "examplebucket.s3.amazonaws.com";
    request_.path = "/";
    request_.payload_sha256 = HexSha256("");
  }

  std::string Authorization() const { return ValueOf(SignV4(request_, keys_, time_), "Authorization"); }

  static std::string Expected(const std::string& signed_headers, const std::string& signature) {
    return "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=" +
           signed_headers + ", Signature=" + signature;
  }

  SigV4Request request_;
  SigV4Keys keys_{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", "us-east-1"};
  int64_t time_ = At("2013-05-24T00:00:00Z");
};

TEST_F(SigV4, AmazonsExampleGetObject) {
  request_.path = "/test.txt";
  request_.headers = {"Range: bytes=0-9"};
  EXPECT_EQ(Authorization(), Expected("host;range;x-amz-content-sha256;x-amz-date",
                                      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
}

TEST_F(SigV4, AmazonsExamplePutObject) {
  request_.method = "PUT";
  request_.path = "/" + UriEncode("test$file.text", true);
  request_.headers = {"Date: Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class: REDUCED_REDUNDANCY"};
  request_.payload_sha256 = HexSha256("Welcome to Amazon S3.");
  EXPECT_EQ(Authorization(), Expected("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                                      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

TEST_F(SigV4, AmazonsExampleGetBucketLifecycle) {
  request_.query = {{"lifecycle", ""}};
  EXPECT_EQ(Authorization(), Expected("host;x-amz-content-sha256;x-amz-date",
                                      "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

TEST_F(SigV4, AmazonsExampleListObjects) {
  request_.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_EQ(Authorization(), Expected("host;x-amz-content-sha256;x-amz-date",
                                      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST_F(SigV4, TheHeadersToSendAreThoseThatWereSigned) {
  request_.headers = {"Content-Type:  application/octet-stream ", "If-None-Match: *"};
  keys_.session_token = "token==";
  const std::vector<std::string> headers = SignV4(request_, keys_, At("2013-05-24T23:59:59.999999Z"));
  EXPECT_EQ(headers.size(), 7U);
  EXPECT_EQ(headers[0], "Host: examplebucket.s3.amazonaws.com");
  EXPECT_EQ(headers[1], request_.headers[0]);
  EXPECT_EQ(headers[2], request_.headers[1]);
  EXPECT_EQ(ValueOf(headers, "x-amz-content-sha256"), request_.payload_sha256);
  EXPECT_EQ(ValueOf(headers, "x-amz-date"), "20130524T235959Z");
  EXPECT_EQ(ValueOf(headers, "x-amz-security-token"), "token==");
  EXPECT_EQ(Part(ValueOf(headers, "Authorization"), "SignedHeaders"),
            "content-type;host;if-none-match;x-amz-content-sha256;x-amz-date;x-amz-security-token");
}

TEST_F(SigV4, EachPartOfTheRequestIsSigned) {
  std::vector<std::string> signatures = {Part(Authorization(), "Signature")};
  auto add = [&](auto change) {
    const SigV4Request request = request_;
    const SigV4Keys keys = keys_;
    const int64_t time = time_;
    change();
    signatures.push_back(Part(Authorization(), "Signature"));
    request_ = request;
    keys_ = keys;
    time_ = time;
  };
  add([&] { request_.method = "HEAD"; });
  add([&] { request_.host = "otherbucket.s3.amazonaws.com"; });
  add([&] { request_.path = "//"; });
  add([&] { request_.path = "/a/../"; });
  add([&] { request_.query = {{"list-type", "2"}}; });
  add([&] { request_.headers = {"If-None-Match: *"}; });
  add([&] { request_.payload_sha256 = HexSha256("a"); });
  add([&] { keys_.secret_access_key = "other"; });
  add([&] { keys_.session_token = "token"; });
  add([&] { keys_.region = "eu-west-1"; });
  add([&] { time_ += 1000000; });
  std::sort(signatures.begin(), signatures.end());
  EXPECT_EQ(std::unique(signatures.begin(), signatures.end()), signatures.end());
}

TEST_F(SigV4, TheSecretKeyIsNotSent) {
  for (const std::string& header : SignV4(request_, keys_, time_))
    EXPECT_EQ(header.find(keys_.secret_access_key), std::string::npos) << header;
}

TEST(SigV4Url, PathsAreEncodedOnceAndNotNormalised) {
  EXPECT_EQ(UriEncode("a b+c/é~%25&=;/.././/x", true), "a%20b%2Bc/%C3%A9~%2525%26%3D%3B/.././/x");
  EXPECT_EQ(UriEncode("/", false), "%2F");
  EXPECT_EQ(UriEncode("AZaz09-._~", false), "AZaz09-._~");
}

TEST(SigV4Url, QueriesAreSortedAsEncoded) {
  EXPECT_EQ(EncodeQuery({}), "");
  EXPECT_EQ(EncodeQuery({{"prefix", "a b/é+"}, {"list-type", "2"}, {"continuation-token", "x=/y"}, {"delete", ""}}),
            "continuation-token=x%3D%2Fy&delete=&list-type=2&prefix=a%20b%2F%C3%A9%2B");
  // "{" sorts behind "z", "%7B" before it.
  EXPECT_EQ(EncodeQuery({{"z", "1"}, {"{", "2"}, {"z", "0"}}), "%7B=2&z=0&z=1");
}

TEST(SigV4Url, HostIsWhatTheHeaderCarries) {
  EXPECT_EQ(HostOfUrl("https://s3.amazonaws.com/bucket/key"), "s3.amazonaws.com");
  EXPECT_EQ(HostOfUrl("https://s3.example.org:443/bucket"), "s3.example.org");
  EXPECT_EQ(HostOfUrl("http://s3.example.org:80"), "s3.example.org");
  EXPECT_EQ(HostOfUrl("http://s3.example.org:443/"), "s3.example.org:443");
  EXPECT_EQ(HostOfUrl("http://127.0.0.1:7480/b/k?x=http://y:80/"), "127.0.0.1:7480");
  EXPECT_EQ(HostOfUrl("http://[::1]:80/"), "[::1]");
  EXPECT_EQ(HostOfUrl("http://[fe80::80]/"), "[fe80::80]");
  EXPECT_EQ(HostOfUrl("http://h:8080?x"), "h:8080");
}

}  // namespace
}  // namespace replica

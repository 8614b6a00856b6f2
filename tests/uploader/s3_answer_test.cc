// What a store that is not S3, or not well, may answer.
#include <gtest/gtest.h>

#include "uploader/s3_listing.h"
#include "uploader/s3_store.h"

namespace replica {
namespace {

Status Take(const std::string& size) {
  S3Lister lister("s3://b/p", "p/");
  return lister.Take("<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p/a</Key>" + size +
                     "</Contents></ListBucketResult>");
}

TEST(S3Answer, SizesOfAListingAreNumbers) {
  EXPECT_TRUE(Take("<Size>0</Size>").ok());
  EXPECT_TRUE(Take("<Size>9223372036854775807</Size>").ok());
  for (const char* size :
       {"", "<Size></Size>", "<Size>-1</Size>", "<Size>1e3</Size>", "<Size> 5</Size>", "<Size>5x</Size>",
        "<Size>9223372036854775808</Size>", "<Size>99999999999999999999999</Size>"})
    EXPECT_EQ(Take(size).code(), Code::kCorrupt) << size;
}

// Each page of a listing that got on could name one key of megabytes: the application's memory was the limit.
TEST(S3Answer, Regression_NamesOfAListingAreNoLongerThanS3Allows) {
  auto take = [](size_t length) {
    S3Lister lister("s3://b/p", "p/");
    return lister.Take(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        "<CommonPrefixes><Prefix>p/" +
        std::string(length - 3, 'a') + "/</Prefix></CommonPrefixes></ListBucketResult>");
  };
  EXPECT_TRUE(take(1024).ok());
  EXPECT_EQ(take(1025).code(), Code::kCorrupt);
}

TEST(S3Answer, ARegionMayBePartOfAHostName) {
  EXPECT_TRUE(IsRegion("eu-west-1"));
  EXPECT_TRUE(IsRegion("cn-north-1"));
  for (const char* text : {"", "EU", "a.example.org", "x/", "x@y", "a b", "eu-west-1\r\nx: y", "x:80", "x?", "x#"})
    EXPECT_FALSE(IsRegion(text)) << text;
  EXPECT_FALSE(IsRegion(std::string(65, 'a')));
}

TEST(S3Answer, AnEchoedRegionThatIsNoneIsNotTold) {
  HttpResponse response;
  response.status = 301;
  response.headers["x-amz-bucket-region"] = "evil.example.org/";
  EXPECT_EQ(S3Error(response, "GET", "s3://b/k", {}).message().find("evil"), std::string::npos);
  response.headers["x-amz-bucket-region"] = "eu-west-1";
  EXPECT_NE(S3Error(response, "GET", "s3://b/k", {}).message().find("eu-west-1"), std::string::npos);
}

}  // namespace
}  // namespace replica

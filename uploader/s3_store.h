// A store in an S3 bucket, or anything that speaks its protocol: s3://bucket/prefix.
//
// SigV4 is libcurl's; this adds what it leaves to the caller (payload hash, sorted and encoded query, session token).
// A PUT streams one object of up to 5 GiB. if_absent is "If-None-Match: *".
#ifndef LIBREPLICA_UPLOADER_S3_STORE_H_
#define LIBREPLICA_UPLOADER_S3_STORE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "uploader/http.h"
#include "uploader/store.h"

namespace replica {

struct S3Options {
  std::string bucket;
  std::string prefix;  // without slashes at its ends; may be empty
  std::string region = "us-east-1";
  std::string endpoint = "https://s3.amazonaws.com";  // scheme://host[:port]
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;
  std::string ca_file;     // PEM; empty: the system's
  bool path_style = true;  // scheme://endpoint/bucket/key, else scheme://bucket.endpoint/key
};

class S3Store : public Store {
 public:
  S3Store(S3Options options, std::shared_ptr<HttpClient> http);

  const std::string& url() const override { return url_; }
  void PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) override;
  Result<std::string> Get(const std::string& key, uint64_t offset, uint64_t size) override;
  Result<uint64_t> Size(const std::string& key) override;
  Result<Listing> List(const std::string& prefix, const std::string& start_after, bool folders_only) override;
  Status Delete(const std::vector<std::string>& keys) override;
  Result<int64_t> ServerTime() override;

 private:
  using Query = std::vector<std::pair<std::string, std::string>>;

  // Waits for the answer; tries again kStoreTries times while the store is unavailable.
  Result<HttpResponse> Send(const HttpRequest& request) const;
  std::string FullKey(const std::string& key) const;
  HttpRequest Request(const std::string& method, const std::string& full_key, Query query,
                      const std::string& payload_sha256) const;

  const S3Options options_;
  const std::string url_;
  const std::shared_ptr<HttpClient> http_;
};

// What an S3 error answer means to the person who reads it. `object` is the URL of what was asked for.
Status S3Error(const HttpResponse& response, const std::string& action, const std::string& object,
               const S3Options& options);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_S3_STORE_H_

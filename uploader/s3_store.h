// A store in an S3 bucket, or anything that speaks its protocol: s3://bucket/prefix.
//
// Every request is signed with the hash of its body and the machine's wall clock (uploader/sigv4.h); each try is signed
// anew. A PUT streams one object of up to 5 GiB. if_absent is "If-None-Match: *".
#ifndef LIBREPLICA_UPLOADER_S3_STORE_H_
#define LIBREPLICA_UPLOADER_S3_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_annotations.h"
#include "uploader/http.h"
#include "uploader/sigv4.h"
#include "uploader/store.h"

namespace replica {

struct S3Options {
  std::string bucket;
  std::string prefix;    // without slashes at its ends; may be empty
  std::string region;    // empty: the store tells, in its first refusal
  std::string endpoint;  // scheme://host[:port]; empty: Amazon's of the region
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;
  std::string ca_file;     // PEM; empty: the system's
  bool path_style = true;  // scheme://endpoint/bucket/key, else scheme://bucket.endpoint/key
};

class S3Store : public Store, public std::enable_shared_from_this<S3Store> {
 public:
  // `endpoint`: of EndpointUrl(options).
  S3Store(S3Options options, std::shared_ptr<HttpClient> http, std::shared_ptr<Endpoint> endpoint = nullptr);
  // The given endpoint, or Amazon's of the region.
  static std::string EndpointUrl(const S3Options& options);

  const std::string& url() const override { return url_; }
  void PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) override;
  Result<std::string> Get(const std::string& key, uint64_t offset, uint64_t size) override;
  Result<uint64_t> Size(const std::string& key) override;
  Result<Listing> List(const std::string& prefix, const std::string& start_after, bool folders_only) override;
  Status Delete(const std::vector<std::string>& keys) override;
  Result<int64_t> ServerTime() override;

 private:
  // Waits for the answer; tries again while the store is unavailable, and once when it tells the bucket's region.
  Result<HttpResponse> Send(const std::function<HttpRequest()>& request);
  // Tells the endpoint what came of a request that began at `begun`.
  void Report(int64_t begun, const Result<HttpResponse>& response);
  // The options with the region that is known by now and its endpoint.
  S3Options InForce() const EXCLUDES(mutex_);
  // Takes the region that a refusal names, if none was given; true when it is news.
  bool LearnRegion(const HttpResponse& response) EXCLUDES(mutex_);
  std::string FullKey(const std::string& key) const;
  // Signed, and without a body yet. `headers`: "Name: value", signed too.
  HttpRequest Request(const std::string& method, const std::string& full_key, const UrlQuery& query,
                      const std::string& payload_sha256, std::vector<std::string> headers = {}) const;

  const S3Options options_;
  const std::string url_;
  const std::shared_ptr<HttpClient> http_;
  mutable Mutex mutex_;
  std::string region_ GUARDED_BY(mutex_);  // given or learned; empty: not known
};

// True for what may become a part of Amazon's host names: lower-case words with dashes
// (https://docs.aws.amazon.com/general/latest/gr/s3.html), 64 characters at most.
bool IsRegion(const std::string& text);

// What an S3 error answer means to the person who reads it. `object` is the URL of what was asked for.
Status S3Error(const HttpResponse& response, const std::string& action, const std::string& object,
               const S3Options& options);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_S3_STORE_H_

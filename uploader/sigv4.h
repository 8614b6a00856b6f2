// AWS Signature Version 4 for S3, in the header Authorization.
//
// Pure: the caller gives the time and the hash of the body. Written after
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. libcurl could sign too, but from 8.14
// on (Debian 13) not together with CURLOPT_PATH_AS_IS, and keys may hold "." and ".." as path segments.
#ifndef LIBREPLICA_UPLOADER_SIGV4_H_
#define LIBREPLICA_UPLOADER_SIGV4_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace replica {

using UrlQuery = std::vector<std::pair<std::string, std::string>>;  // names and values, not encoded

struct SigV4Keys {
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;  // of temporary credentials; else empty
  std::string region;         // "us-east-1"
};

struct SigV4Request {
  std::string method;
  std::string host;  // HostOfUrl
  std::string path;  // as it is sent: each segment encoded once (UriEncode), nothing normalised
  UrlQuery query;
  std::vector<std::string> headers;  // "Name: value", no name twice, without Host and those that SignV4 adds
  std::string payload_sha256;        // hexadecimal
};

// All headers to send: Host, the given ones, x-amz-content-sha256, x-amz-date, x-amz-security-token if there is a
// session token, and Authorization. It signs all the others. The store takes them for 15 minutes from `wall_micros` on;
// a request that is tried again later has to be signed again.
std::vector<std::string> SignV4(const SigV4Request& request, const SigV4Keys& keys, int64_t wall_micros);

// RFC 3986's unreserved characters stay, and "/" with `keep_slash`, which is for paths.
std::string UriEncode(const std::string& text, bool keep_slash);
// What follows the "?" in a URL: encoded, and sorted as the signature wants it.
std::string EncodeQuery(const UrlQuery& query);
// The header Host for a URL: host and port, without the port that the scheme implies.
std::string HostOfUrl(const std::string& url);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SIGV4_H_

// Texts of settings as values. Each refuses what it does not fully understand.
#ifndef LIBREPLICA_CONFIG_PARSE_H_
#define LIBREPLICA_CONFIG_PARSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace replica {

// The error for a setting's text: says what to give instead, not where it came from (the caller adds that).
Status Invalid(const std::string& what);

// 1/0, true/false, yes/no, on/off.
Status ParseFlag(const std::string& text, bool* out);
// "500ms", "10s", "5m", "24h", "1h30m"; a bare number is seconds.
Status ParseDuration(const std::string& text, int64_t* micros);
// "268435456", "256MiB", "1GiB".
Status ParseBytes(const std::string& text, uint64_t* bytes);
// https://host[:port], without a path; slashes at its end are dropped. A bare host is taken for HTTPS, one of this
// machine or a private network for HTTP.
Status ParseEndpoint(const std::string& text, std::string* out);

struct ReplicaUrl {
  enum Kind { kFile, kS3 } kind = kFile;
  std::string folder;  // absolute, for kFile
  std::string bucket;
  std::string prefix;  // without slashes at its ends
};
// file:///absolute/folder or s3://bucket/prefix.
Result<ReplicaUrl> ParseUrl(const std::string& url);

constexpr size_t kLongestUrl = 2000;

// "~" and "~/…" in the home folder; else as it is.
std::string ExpandHome(std::string path);
std::string TrimSlashes(std::string text);
// The parts between the separators, without the empty ones.
std::vector<std::string> SplitList(const std::string& text, char separator);

}  // namespace replica

#endif  // LIBREPLICA_CONFIG_PARSE_H_

#include "config/parse.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace replica {
namespace {

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// A rejected URL as it may be shown: one with an "@" can hold a key before it, one with a query anything.
std::string WithoutSecrets(const std::string& url) {
  const size_t query = url.find('?');
  const std::string plain = query == std::string::npos ? url : url.substr(0, query) + "?…";
  const size_t at = plain.rfind('@');
  return at == std::string::npos ? plain : "…" + plain.substr(at);
}

// Where plain HTTP is the rule, as Litestream has it: this machine, private networks, and .local names.
bool IsLocalHost(const std::string& endpoint) {
  const std::string host = endpoint.substr(0, endpoint.find_first_of(":/"));
  int second = 0;
  if (host.rfind("172.", 0) == 0) second = std::atoi(host.c_str() + 4);
  return host == "localhost" || host.rfind("127.", 0) == 0 || host.rfind("10.", 0) == 0 ||
         host.rfind("192.168.", 0) == 0 || (second >= 16 && second <= 31) || EndsWith(host, ".local") ||
         EndsWith(host, ".localhost");
}

// What else a URL may ask for, and what to say then.
struct OtherScheme {
  const char* scheme;
  const char* advice;
};
constexpr OtherScheme kOtherSchemes[] = {
    {"abs://", "Azure is not supported; give an S3 endpoint, or file"},
    {"gs://", "Google Cloud Storage is not supported; give an S3 endpoint with conditional PUT, or file"},
    {"gcs://", "Google Cloud Storage is not supported; give an S3 endpoint with conditional PUT, or file"},
    {"sftp://", "SFTP is not supported; give an S3 endpoint, or file"},
    {"nats://", "NATS is not supported; give an S3 endpoint, or file"},
    {"webdav://", "WebDAV is not supported; give an S3 endpoint, or file"},
    {"webdavs://", "WebDAV is not supported; give an S3 endpoint, or file"},
    {"oss://", "Alibaba's store is not supported; give an S3 endpoint with conditional PUT, or file"},
    {"s3://arn:", "access points are not supported; give the bucket's name"},
    {"/", "write file:// before a folder's path"},
};

double MicrosOf(const std::string& unit) {
  if (unit == "h") return 3600e6;
  if (unit == "m") return 60e6;
  if (unit == "s") return 1e6;
  if (unit == "ms") return 1e3;
  if (unit == "us" || unit == "µs") return 1;
  return 0;
}

}  // namespace

Status Invalid(const std::string& what) {
  return {Code::kInvalidArgument, what};
}

Status ParseFlag(const std::string& given, bool* out) {
  std::string text = given;  // YAML writes True, YES, Off
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (text == "1" || text == "true" || text == "yes" || text == "on") {
    *out = true;
    return Ok();
  }
  if (text == "0" || text == "false" || text == "no" || text == "off") {
    *out = false;
    return Ok();
  }
  return Invalid("\"" + given + "\": give true or false");
}

Status ParseDuration(const std::string& text, int64_t* micros) {
  Status wrong = Invalid("\"" + text + "\" is no duration: give 500ms, 10s, 5m or 24h");
  double total = 0;
  const char* at = text.data();
  const char* const all = at + text.size();
  if (at == all) return wrong;
  while (at != all) {
    double value = 0;
    const auto [end, error] = std::from_chars(at, all, value, std::chars_format::fixed);
    if (error != std::errc() || *at == '-' || !std::isfinite(value)) return wrong;
    const char* unit_end = end;
    while (unit_end != all && *unit_end != '.' && (*unit_end < '0' || *unit_end > '9')) unit_end++;
    const std::string unit(end, static_cast<size_t>(unit_end - end));
    const bool bare = unit.empty() && at == text.data();
    const double scale = bare ? 1e6 : MicrosOf(unit);
    if (scale == 0) return wrong;
    total += value * scale;
    at = unit_end;
  }
  if (total > 1e15) return wrong;  // some thirty years
  *micros = static_cast<int64_t>(total);
  return Ok();
}

Status ParseBytes(const std::string& text, uint64_t* bytes) {
  Status wrong = Invalid("\"" + text + "\" is no size: give bytes, or 256MiB, or 1GiB");
  if (text.empty() || text[0] < '0' || text[0] > '9') return wrong;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  const std::string unit = end;
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (shift < 0 || value > (UINT64_MAX >> shift)) return wrong;
  *bytes = uint64_t{value} << shift;
  return Ok();
}

Status ParseEndpoint(const std::string& text, std::string* out) {
  std::string endpoint = text;
  // A bare host means HTTPS, as in AWS's SDKs.
  if (endpoint.find("://") == std::string::npos && endpoint.find_first_of(".:") != std::string::npos)
    endpoint.insert(0, IsLocalHost(endpoint) ? "http://" : "https://");
  while (endpoint.size() > 8 && endpoint.back() == '/') endpoint.pop_back();
  const bool http = endpoint.rfind("http://", 0) == 0;
  const size_t host = http ? 7 : 8;
  if ((!http && endpoint.rfind("https://", 0) != 0) || endpoint.size() == host ||
      endpoint.find_first_of("/?#@% ", host) != std::string::npos)
    return Invalid("\"" + WithoutSecrets(endpoint) +
                   "\" is no endpoint: give https://host or https://host:port, without a path");
  *out = endpoint;
  return Ok();
}

std::string ExpandHome(std::string path) {
  const char* home = std::getenv("HOME");
  if (home != nullptr && (path == "~" || path.rfind("~/", 0) == 0)) path.replace(0, 1, home);
  return path;
}

std::string TrimSlashes(std::string text) {
  while (!text.empty() && text.back() == '/') text.pop_back();
  while (!text.empty() && text.front() == '/') text.erase(0, 1);
  return text;
}

Result<ReplicaUrl> ParseUrl(const std::string& url) {
  ReplicaUrl out;
  if (url.size() > kLongestUrl) return Invalid("the replica URL is too long");
  for (char c : url)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return Invalid("the replica URL holds a control character");
  const std::string shown = "replica URL \"" + WithoutSecrets(url) + "\"";
  if (url.rfind("file://", 0) == 0) {
    out.kind = ReplicaUrl::kFile;
    out.folder = url.substr(7);
    if (out.folder.empty() || out.folder[0] != '/')
      return Invalid(shown + ": give an absolute path, as in file:///var/backups/app");
    while (out.folder.size() > 1 && out.folder.back() == '/') out.folder.pop_back();
    if (out.folder == "/") return Invalid(shown + ": the root folder cannot be a replica");
    return out;
  }
  for (const OtherScheme& other : kOtherSchemes)
    if (url.rfind(other.scheme, 0) == 0) return Invalid(shown + ": " + other.advice);
  if (url.rfind("s3://", 0) != 0) return Invalid(shown + ": give file:///folder or s3://bucket/prefix");
  out.kind = ReplicaUrl::kS3;
  const std::string rest = url.substr(5);
  const size_t slash = rest.find('/');
  out.bucket = rest.substr(0, slash);
  if (slash != std::string::npos) out.prefix = TrimSlashes(rest.substr(slash + 1));
  // Litestream reads bucket, region and endpoint out of such host names.
  static constexpr std::array<const char*, 6> kProviders = {".amazonaws.com",   ".digitaloceanspaces.com",
                                                            ".backblazeb2.com", ".filebase.com",
                                                            ".scw.cloud",       ".linodeobjects.com"};
  for (const char* provider : kProviders)
    if (EndsWith(out.bucket, provider))
      return Invalid(shown +
                     ": the bucket's name alone belongs there, as in s3://bucket/app; give the host as endpoint");
  if (out.bucket.empty() ||
      out.bucket.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
          std::string::npos)
    return Invalid(shown + ": give bucket and prefix, as in s3://bucket/app");
  if (const size_t query = out.prefix.find('?');
      query != std::string::npos && out.prefix.find('=', query) != std::string::npos)
    return Invalid(shown + ": settings do not go into the URL; give region, endpoint and the like beside it");
  return out;
}

std::vector<std::string> SplitList(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace replica

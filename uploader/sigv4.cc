#include "uploader/sigv4.h"

#include <algorithm>
#include <ctime>
#include <map>
#include <string_view>

#include "base/bytes.h"
#include "base/sha256.h"

namespace replica {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";

// "20130524T000000Z"
std::string Timestamp(int64_t wall_micros) {
  const time_t seconds = wall_micros / 1000000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char out[32];
  return {out, strftime(out, sizeof out, "%Y%m%dT%H%M%SZ", &parts)};
}

std::string Lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return text;
}

std::string Trim(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string Hmac(const std::string& key, const std::string& text) {
  const Sha256::Digest digest = HmacSha256(key, text);
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

std::string HexSha256(const std::string& text) {
  const Sha256::Digest digest = Sha256::Of(text);
  return HexEncode(digest.data(), digest.size());
}

}  // namespace

std::vector<std::string> SignV4(const SigV4Request& request, const SigV4Keys& keys, int64_t wall_micros) {
  const std::string time = Timestamp(wall_micros);
  const std::string day = time.substr(0, 8);
  const std::string scope = day + "/" + keys.region + "/s3/aws4_request";

  std::vector<std::string> headers = {"Host: " + request.host};
  headers.insert(headers.end(), request.headers.begin(), request.headers.end());
  headers.push_back("x-amz-content-sha256: " + request.payload_sha256);
  headers.push_back("x-amz-date: " + time);
  if (!keys.session_token.empty()) headers.push_back("x-amz-security-token: " + keys.session_token);

  std::map<std::string, std::string> sorted;  // values by lower-case names
  for (const std::string& header : headers) {
    const size_t colon = header.find(':');
    sorted[Lower(header.substr(0, colon))] = Trim(header.substr(colon + 1));
  }
  std::string lines;
  std::string names;
  for (const auto& [name, value] : sorted) {
    lines.append(name).append(":").append(value).append("\n");
    names.append(names.empty() ? "" : ";").append(name);
  }
  const std::string canonical_request = request.method + "\n" + request.path + "\n" + EncodeQuery(request.query) +
                                        "\n" + lines + "\n" + names + "\n" + request.payload_sha256;
  const std::string string_to_sign =
      std::string(kAlgorithm) + "\n" + time + "\n" + scope + "\n" + HexSha256(canonical_request);

  const std::string signing_key =
      Hmac(Hmac(Hmac(Hmac("AWS4" + keys.secret_access_key, day), keys.region), "s3"), "aws4_request");
  const std::string signature = Hmac(signing_key, string_to_sign);
  headers.push_back(std::string("Authorization: ") + kAlgorithm + " Credential=" + keys.access_key_id + "/" + scope +
                    ", SignedHeaders=" + names + ", Signature=" + HexEncode(signature.data(), signature.size()));
  return headers;
}

std::string UriEncode(const std::string& text, bool keep_slash) {
  static const char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : text) {
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
        c == '_' || c == '~' || (keep_slash && c == '/')) {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back('%');
      out.push_back(kDigits[c >> 4]);
      out.push_back(kDigits[c & 15]);
    }
  }
  return out;
}

std::string EncodeQuery(const UrlQuery& query) {
  UrlQuery encoded;
  for (const auto& [name, value] : query) encoded.emplace_back(UriEncode(name, false), UriEncode(value, false));
  std::sort(encoded.begin(), encoded.end());
  std::string out;
  for (const auto& [name, value] : encoded) out.append(out.empty() ? "" : "&").append(name).append("=").append(value);
  return out;
}

std::string HostOfUrl(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos) return {};
  std::string host = url.substr(scheme + 3, url.find_first_of("/?#", scheme + 3) - scheme - 3);
  const std::string_view implied = url.compare(0, scheme, "https") == 0 ? ":443" : ":80";
  if (host.size() > implied.size() && host.compare(host.size() - implied.size(), implied.size(), implied) == 0)
    host.resize(host.size() - implied.size());
  return host;
}

}  // namespace replica

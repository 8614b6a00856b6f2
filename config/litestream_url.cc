#include "config/litestream_url.h"

#include <algorithm>
#include <charconv>
#include <regex>

#include "config/parse.h"

namespace replica {
namespace {

// "%3A" is ":", "+" a blank.
std::string Decoded(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    unsigned value = 0;
    const char* begin = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(begin, begin + 2, value, 16).ptr == begin + 2) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

Status TakeQuery(LitestreamUrl* out) {
  std::string& url = out->url;
  const size_t query = url.find('?');
  if (url.rfind("s3://", 0) != 0 || query == std::string::npos || url.find('=', query) == std::string::npos)
    return Ok();
  static const std::map<std::string, const char*> kNames = {{"endpoint", "endpoint"},
                                                            {"region", "region"},
                                                            {"forcePathStyle", "force-path-style"},
                                                            {"force-path-style", "force-path-style"}};
  for (size_t at = query + 1; at < url.size();) {
    const size_t end = std::min(url.find('&', at), url.size());
    const std::string item = url.substr(at, end - at);
    const size_t equals = std::min(item.find('='), item.size());
    at = end + 1;
    const std::string name = item.substr(0, equals);
    if (name == "sign-payload" || name == "signPayload") continue;  // they always are
    const auto known = kNames.find(name);
    if (known == kNames.end()) return Invalid("url: \"" + name + "\" in the query is not supported: leave it out");
    std::string text = Decoded(item.substr(std::min(equals + 1, item.size())));
    // A bare name, of a container say, is a host too.
    if (name == "endpoint" && text.find_first_of(".:") == std::string::npos) text.insert(0, "https://");
    out->settings.try_emplace(known->second, std::move(text));
  }
  url.resize(query);
  return Ok();
}

void TakeHost(LitestreamUrl* out) {
  struct Form {
    std::regex pattern;  // 1: bucket, 2: region (where there is one)
    const char* endpoint;
    const char* region;
  };
  static const Form kForms[] = {
      {std::regex(R"(s3://(.+)\.s3\.([^./]+)\.backblazeb2\.com(/.*)?)"), "https://s3.$2.backblazeb2.com", "$2"},
      {std::regex(R"(s3://(.+)\.([^./]+)\.digitaloceanspaces\.com(/.*)?)"), "https://$2.digitaloceanspaces.com", "$2"},
      {std::regex(R"(s3://(.+)\.s3\.([^./]+)\.scw\.cloud(/.*)?)"), "https://s3.$2.scw.cloud", "$2"},
      {std::regex(R"(s3://(.+)\.([^./]+)\.linodeobjects\.com(/.*)?)"), "https://$2.linodeobjects.com", "$2"},
      {std::regex(R"(s3://(.+)\.s3(\.)filebase\.com(/.*)?)"), "https://s3.filebase.com", "us-east-1"},
      {std::regex(R"(s3://(.+)\.localhost(:[0-9]+)?(/.*)?)"), "http://localhost$2", "us-east-1"},
  };
  for (const Form& form : kForms) {
    std::smatch match;
    if (!std::regex_match(out->url, match, form.pattern)) continue;
    out->settings.try_emplace("endpoint", match.format(form.endpoint));
    out->settings.try_emplace("region", match.format(form.region));
    out->url = match.format("s3://$1$3");
    return;
  }
}

}  // namespace

Result<LitestreamUrl> ParseLitestreamUrl(const std::string& url) {
  LitestreamUrl out = {url, {}};
  if (url.size() > kLongestUrl) return out;  // std::regex recurses over the text; ParseUrl refuses it
  REPLICA_TRY(TakeQuery(&out));
  TakeHost(&out);
  return out;
}

}  // namespace replica

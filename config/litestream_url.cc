#include "config/litestream_url.h"

#include <algorithm>
#include <charconv>
#include <regex>

#include "config/file_keys.h"
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

// Litestream knows each name in two spellings: "partSize" and "part-size".
std::string Hyphenated(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size(); i++) {
    const bool capital = name[i] >= 'A' && name[i] <= 'Z';
    if (capital && i > 0 && name[i - 1] >= 'a' && name[i - 1] <= 'z') out += '-';
    out += static_cast<char>(capital ? name[i] - 'A' + 'a' : name[i]);
  }
  return out;
}

Status TakeQueryItem(const std::string& name, const std::string& text, LitestreamUrl* out) {
  const std::string key = Hyphenated(name);
  if (key == "endpoint" || key == "region" || key == "force-path-style") {
    // A bare name, of a container say, is a host too.
    const bool bare = key == "endpoint" && text.find_first_of(".:") == std::string::npos;
    out->settings.try_emplace(key, (bare ? "https://" : "") + text);
    return Ok();
  }
  const FileKey* known = FindFileKey(key, kReplica);
  const std::string told = "url: \"" + name + "\" in the query";
  if (known != nullptr && known->use == FileKey::kUnneeded) {
    out->warnings.push_back(told + " is not needed here: " + known->text);
  } else if (known != nullptr && known->use == FileKey::kUnsupported) {
    out->warnings.push_back(told + " is not supported: " + known->text);
  } else if (known != nullptr && known->use == FileKey::kRefused) {
    if (!text.empty() && text != "false") return Invalid(told + ": " + known->text);
  } else {
    return Invalid(told + " is not supported: leave it out");
  }
  return Ok();
}

Status TakeQuery(LitestreamUrl* out) {
  std::string& url = out->url;
  const size_t query = url.find('?');
  if (url.rfind("s3://", 0) != 0 || query == std::string::npos || url.find('=', query) == std::string::npos)
    return Ok();
  for (size_t at = query + 1; at < url.size();) {
    const size_t end = std::min(url.find('&', at), url.size());
    const std::string item = url.substr(at, end - at);
    const size_t equals = std::min(item.find('='), item.size());
    at = end + 1;
    REPLICA_TRY(TakeQueryItem(item.substr(0, equals), Decoded(item.substr(std::min(equals + 1, item.size()))), out));
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
  LitestreamUrl out = {url, {}, {}};
  if (url.size() > kLongestUrl) return out;  // std::regex recurses over the text; ParseUrl refuses it
  REPLICA_TRY(TakeQuery(&out));
  TakeHost(&out);
  return out;
}

}  // namespace replica

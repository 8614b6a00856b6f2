#include "uploader/s3_store.h"

#include <curl/curl.h>
#include <openssl/evp.h>

#include <algorithm>
#include <chrono>
#include <pugixml.hpp>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "uploader/s3_listing.h"

namespace replica {
namespace {

constexpr char kEmptySha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kDefaultRegion[] = "us-east-1";
constexpr size_t kDeleteBatch = 1000;   // DeleteObjects takes no more
constexpr int64_t kMaxPause = 2000000;  // µs that a call waits between tries, when the store says how long

std::string HeaderOf(const HttpResponse& response, const std::string& name) {
  auto found = response.headers.find(name);
  return found == response.headers.end() ? "" : found->second;
}

std::string Md5Base64(const std::string& bytes) {
  const auto digest = Md5Of(bytes);
  unsigned char out[32];
  int n = EVP_EncodeBlock(out, digest.data(), static_cast<int>(digest.size()));
  return {reinterpret_cast<char*>(out), static_cast<size_t>(n)};
}

// A text of the store's for people: bounded, on one line, and without our own secrets, which some echo.
std::string Quote(std::string text, size_t most, const S3Options& o) {
  for (const std::string& secret : {o.secret_access_key, o.session_token, o.access_key_id})
    for (size_t at = secret.size() < 4 ? std::string::npos : text.find(secret); at != std::string::npos;
         at = text.find(secret, at))
      text.replace(at, secret.size(), "***");
  if (text.size() > most) text = text.substr(0, most) + "…";
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  return text;
}

// The endpoint does not work, or not now. A 409 concerns one object, and what it cannot do at all (501) it will not
// later.
bool ComeBack(const HttpResponse& response) {
  return (response.status >= 500 && response.status != 501) || response.status == 429 || response.status == 408;
}

}  // namespace

bool IsRegion(const std::string& text) {
  return !text.empty() && text.size() <= 64 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

Status S3Error(const HttpResponse& response, const std::string& action, const std::string& object, const S3Options& o) {
  std::string code;
  std::string message;
  std::string region = HeaderOf(response, "x-amz-bucket-region");
  pugi::xml_document xml;
  if (xml.load_buffer(response.body.data(), response.body.size())) {
    pugi::xml_node error = xml.child("Error");
    code = error.child_value("Code");
    message = error.child_value("Message");
    if (region.empty()) region = error.child_value("Region");
  }
  // A short secret may look like a region, and a store may echo it there too.
  if (!IsRegion(region) || Quote(region, region.size(), o) != region) region.clear();
  std::string what = action + " " + object + ": HTTP " + std::to_string(response.status);
  if (!code.empty()) what += " " + Quote(code, 100, o);
  if (!message.empty()) what += " (" + Quote(message, 200, o) + ")";
  auto with = [&](Code c, const std::string& advice) { return Status(c, what + "; " + advice); };

  if (response.status == 301 || response.status == 307 || code == "PermanentRedirect" ||
      code == "AuthorizationHeaderMalformed" || code == "IllegalLocationConstraintException")
    return with(Code::kPermission, "the bucket is in another region than \"" + o.region + "\"" +
                                       (region.empty() ? "" : ", in \"" + region + "\"") + ": set REPLICA_REGION");
  if (code == "InvalidAccessKeyId")
    return with(Code::kPermission, "the store does not know this access key id: check REPLICA_ACCESS_KEY_ID");
  if (code == "SignatureDoesNotMatch")
    return with(Code::kPermission,
                "the secret key does not belong to the access key id: check REPLICA_SECRET_ACCESS_KEY");
  if (code == "RequestTimeTooSkewed") return with(Code::kPermission, "this machine's clock is wrong: synchronise it");
  if (code == "ExpiredToken" || code == "InvalidToken")
    return with(Code::kPermission, "the session token is not valid any more: give a new one");
  if (code == "NoSuchBucket")
    return with(Code::kPermission, "there is no bucket \"" + o.bucket + "\" at " + o.endpoint +
                                       ": create it, or check REPLICA_BUCKET and REPLICA_ENDPOINT");
  if (response.status == 401 || response.status == 403)
    return with(Code::kPermission,
                "the key may not do this: allow s3:PutObject, s3:GetObject, s3:ListBucket on the "
                "bucket and its objects");
  if (response.status == 413 || code == "EntityTooLarge" || code == "RequestEntityTooLarge")
    return with(Code::kTooLarge, "the store, or a proxy before it, takes no object as large: raise that limit");
  if (code == "XAmzContentSHA256Mismatch" || code == "BadDigest")
    return with(Code::kCorrupt, "what arrived is not what was sent: it will be tried again");
  if (response.status == 404) return with(Code::kNotFound, "it is not there");
  if (response.status == 412) return with(Code::kExists, "it exists already");
  if (response.status == 501)
    return with(Code::kUnsupported,
                "the store cannot do conditional PUTs, so two writers could not be told apart: use "
                "another store, or accept that with the option \"fencing\": false");
  if (response.status == 409 || response.status == 408 || response.status == 429 || response.status >= 500)
    return with(Code::kUnavailable, "it will be tried again");
  return with(Code::kInvalidArgument, "the store refused the request: check REPLICA_ENDPOINT");
}

S3Store::S3Store(S3Options options, std::shared_ptr<HttpClient> http, std::shared_ptr<Endpoint> endpoint)
    : Store(std::move(endpoint)),
      options_(std::move(options)),
      url_("s3://" + options_.bucket + (options_.prefix.empty() ? "" : "/" + options_.prefix)),
      http_(std::move(http)),
      region_(options_.region) {}

std::string S3Store::EndpointUrl(const S3Options& o) {
  if (!o.endpoint.empty()) return o.endpoint;
  // Regions of after March 2019 are not served by the host without a region.
  const std::string domain = o.region.rfind("cn-", 0) == 0 ? ".amazonaws.com.cn" : ".amazonaws.com";
  return "https://s3" + (o.region.empty() ? "" : "." + o.region) + domain;
}

S3Options S3Store::InForce() const {
  S3Options o = options_;
  {
    MutexLock lock(mutex_);
    o.region = region_;
  }
  o.endpoint = EndpointUrl(o);
  if (o.region.empty()) o.region = kDefaultRegion;
  return o;
}

bool S3Store::LearnRegion(const HttpResponse& response) {
  if (!options_.region.empty() || response.status < 300 || response.status >= 500) return false;
  const std::string region = HeaderOf(response, "x-amz-bucket-region");
  if (!IsRegion(region)) return false;
  MutexLock lock(mutex_);
  if (region == (region_.empty() ? kDefaultRegion : region_)) return false;
  region_ = region;
  return true;
}

std::string S3Store::FullKey(const std::string& key) const {
  return options_.prefix.empty() ? key : options_.prefix + "/" + key;
}

HttpRequest S3Store::Request(const std::string& method, const std::string& full_key, const UrlQuery& query,
                             const std::string& payload_sha256, std::vector<std::string> headers) const {
  const S3Options o = InForce();
  std::string base = o.endpoint;
  std::string path = "/" + UriEncode(full_key, true);
  if (o.path_style) {
    path.insert(0, "/" + o.bucket);
  } else {
    base.insert(base.find("://") + 3, o.bucket + ".");
  }
  HttpRequest r;
  r.method = method;
  r.url = base + path;
  if (!query.empty()) r.url += "?" + EncodeQuery(query);
  r.headers = SignV4({method, HostOfUrl(base), path, query, std::move(headers), payload_sha256},
                     {o.access_key_id, o.secret_access_key, o.session_token, o.region}, SystemClock().WallMicros());
  r.ca_file = o.ca_file;
  return r;
}

void S3Store::Report(int64_t begun, const Result<HttpResponse>& response) {
  if (response.ok() && !ComeBack(*response)) {
    endpoint()->Answered();
  } else if (response.ok()) {
    endpoint()->Failed(begun, response->retry_after,
                       endpoint()->name() + " answers HTTP " + std::to_string(response->status));
  } else if (response.status().code() == Code::kUnavailable) {
    endpoint()->Failed(begun, 0, response.status().message());
  }
}

Result<HttpResponse> S3Store::Send(const std::function<HttpRequest()>& request) {
  const int tries = Tries();
  for (int attempt = 1;; attempt++) {
    const int64_t begun = SystemClock().SteadyMicros();
    auto response = http_->Perform(request());
    if (response.ok() && attempt < kStoreTries && LearnRegion(*response)) continue;
    const bool again = response.ok() ? ComeBack(*response) : response.status().code() == Code::kUnavailable;
    // Only the last try counts: a store that refuses one request now and then is not down.
    if (!again || attempt >= tries || (response.ok() && response->retry_after > kMaxPause)) {
      Report(begun, response);
      return response;
    }
    const int64_t pause = std::max<int64_t>(50000 << attempt, response.ok() ? response->retry_after : 0);
    std::this_thread::sleep_for(std::chrono::microseconds(pause));
  }
}

void S3Store::PutAsync(const std::string& key, ObjectBody body, bool if_absent, Done done) {
  std::vector<std::string> headers = {"Content-Type: application/octet-stream"};
  if (if_absent) headers.emplace_back("If-None-Match: *");
  HttpRequest r = Request("PUT", FullKey(key), {}, body.sha256, std::move(headers));
  r.body = std::move(body);
  const int64_t begun = SystemClock().SteadyMicros();
  http_->Start(std::move(r), [done = std::move(done), object = ObjectUrl(*this, key), options = InForce(), begun,
                              self = shared_from_this()](Result<HttpResponse> response) {
    self->Report(begun, response);
    if (!response.ok()) {
      done(response.status().In("PUT " + object));
    } else if (response->status == 200) {
      done(Ok());
    } else if (self->LearnRegion(*response)) {
      done(Status(Code::kUnavailable, "PUT " + object + ": the bucket is in another region; trying again there"));
    } else {
      done(S3Error(*response, "PUT", object, options));
    }
  });
}

Result<std::string> S3Store::Get(const std::string& key, uint64_t offset, uint64_t size) {
  const std::string object = ObjectUrl(*this, key);
  if (size == 0) return std::string();
  auto response = Send([&] {
    HttpRequest r = Request("GET", FullKey(key), {}, kEmptySha256,
                            {"Range: bytes=" + std::to_string(offset) + "-" + std::to_string(offset + size - 1)});
    r.response_limit = std::max<uint64_t>(size, 64 << 10);
    return r;
  });
  if (!response.ok()) return response.status().In("GET " + object);
  if (response->status == 416) return std::string();
  if (response->status != 206 && response->status != 200) return S3Error(*response, "GET", object, InForce());
  // A store that ignores Range answers 200 with the whole object.
  if (response->status == 200 && (offset != 0 || response->body.size() > size)) {
    if (offset >= response->body.size()) return std::string();
    return response->body.substr(offset, size);
  }
  return std::move(response->body);
}

Result<uint64_t> S3Store::Size(const std::string& key) {
  const std::string object = ObjectUrl(*this, key);
  auto response = Send([&] { return Request("HEAD", FullKey(key), {}, kEmptySha256); });
  if (!response.ok()) return response.status().In("HEAD " + object);
  if (response->status != 200) return S3Error(*response, "HEAD", object, InForce());
  const auto size = ParseNumber(HeaderOf(*response, "content-length"));
  if (!size) return Status(Code::kCorrupt, "HEAD " + object + ": the answer gives no size; check REPLICA_ENDPOINT");
  return *size;
}

Result<Listing> S3Store::List(const std::string& prefix, const std::string& start_after, bool folders_only) {
  const std::string object = ObjectUrl(*this, prefix);
  S3Lister lister(object, FullKey(""));
  while (!lister.done()) {
    UrlQuery query = {{"list-type", "2"}, {"prefix", FullKey(prefix)}};
    if (!start_after.empty()) query.emplace_back("start-after", FullKey(start_after));
    if (folders_only) query.emplace_back("delimiter", "/");
    if (!lister.token().empty()) query.emplace_back("continuation-token", lister.token());
    auto response = Send([&] { return Request("GET", "", query, kEmptySha256); });
    if (!response.ok()) return response.status().In("LIST " + object);
    if (response->status != 200) return S3Error(*response, "LIST", object, InForce());
    REPLICA_TRY(lister.Take(response->body));
  }
  return lister.Finish();
}

Status S3Store::Delete(const std::vector<std::string>& keys) {
  for (size_t first = 0; first < keys.size(); first += kDeleteBatch) {
    pugi::xml_document xml;
    pugi::xml_node root = xml.append_child("Delete");
    root.append_child("Quiet").text() = "true";
    for (size_t i = first; i < std::min(keys.size(), first + kDeleteBatch); i++)
      root.append_child("Object").append_child("Key").text() = FullKey(keys[i]).c_str();
    struct Writer : pugi::xml_writer {
      std::string out;
      void write(const void* data, size_t size) override { out.append(static_cast<const char*>(data), size); }
    } writer;
    xml.save(writer, "", pugi::format_raw);
    auto response = Send([&] {
      const ObjectBody body = ObjectBody::FromBytes(writer.out);
      HttpRequest r = Request("POST", "", {{"delete", ""}}, body.sha256,
                              {"Content-MD5: " + Md5Base64(body.bytes), "Content-Type: application/xml"});
      r.body = body;
      return r;
    });
    if (!response.ok()) return response.status().In("DELETE in " + url_);
    if (response->status != 200) return S3Error(*response, "DELETE in", url_, InForce());
    pugi::xml_document answer;
    if (answer.load_buffer(response->body.data(), response->body.size())) {
      pugi::xml_node error = answer.child("DeleteResult").child("Error");
      if (error)
        return {Code::kPermission, "DELETE " + url_ + "/" + Quote(error.child_value("Key"), 200, options_) + ": " +
                                       Quote(error.child_value("Code"), 100, options_) +
                                       "; the key may not delete (s3:DeleteObject, Object Lock)"};
    }
  }
  return Ok();
}

Result<int64_t> S3Store::ServerTime() {
  // Every answer has a Date, a refusal too.
  auto response = Send([&] { return Request("HEAD", "", {}, kEmptySha256); });
  if (!response.ok()) return response.status().In("HEAD " + url_);
  const time_t seconds = curl_getdate(HeaderOf(*response, "date").c_str(), nullptr);
  if (seconds < 0) return Status(Code::kCorrupt, "HEAD " + url_ + ": the answer has no Date");
  return int64_t{seconds} * 1000000;
}

}  // namespace replica

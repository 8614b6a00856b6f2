#include "ext/config.h"

#include <fnmatch.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/fs.h"

namespace replica {
namespace {

Status Invalid(const std::string& what) {
  return {Code::kInvalidArgument, what};
}

bool ParseBool(const std::string& text, bool* out) {
  if (text == "1" || text == "true" || text == "yes" || text == "on") {
    *out = true;
    return true;
  }
  if (text.empty() || text == "0" || text == "false" || text == "no" || text == "off") {
    *out = false;
    return true;
  }
  return false;
}

// "500ms", "10s", "5m", "24h"; a bare number is seconds.
bool ParseDuration(const std::string& text, int64_t* micros) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || value < 0 || value > 1e9) return false;
  const std::string unit = end;
  double scale = 0;
  if (unit.empty() || unit == "s") scale = 1e6;
  if (unit == "ms") scale = 1e3;
  if (unit == "m") scale = 60e6;
  if (unit == "h") scale = 3600e6;
  if (scale == 0) return false;
  *micros = static_cast<int64_t>(value * scale);
  return true;
}

// "268435456", "256MiB", "1GiB"
bool ParseBytes(const std::string& text, uint64_t* bytes) {
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (end == text.c_str() || text[0] == '-') return false;
  const std::string unit = end;
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (shift < 0 || value > (UINT64_MAX >> shift)) return false;
  *bytes = uint64_t{value} << shift;
  return true;
}

// A rejected URL as it may be shown: one with an "@" can hold a key before it.
std::string WithoutSecrets(const std::string& url) {
  const size_t at = url.rfind('@');
  return at == std::string::npos ? url : "…" + url.substr(at);
}

Status CheckEndpoint(const std::string& endpoint, const std::string& name) {
  const bool http = endpoint.rfind("http://", 0) == 0;
  const size_t host = http ? 7 : 8;
  if ((!http && endpoint.rfind("https://", 0) != 0) || endpoint.size() == host ||
      endpoint.find_first_of("/?#@ ", host) != std::string::npos)
    return Invalid(name + ": \"" + WithoutSecrets(endpoint) +
                   "\" is no endpoint: give https://host or https://host:port, without a path");
  return Ok();
}

std::string TrimSlashes(std::string text) {
  while (!text.empty() && text.back() == '/') text.pop_back();
  while (!text.empty() && text.front() == '/') text.erase(0, 1);
  return text;
}

}  // namespace

Result<ReplicaUrl> ParseUrl(const std::string& url) {
  ReplicaUrl out;
  if (url.rfind("file://", 0) == 0) {
    out.kind = ReplicaUrl::kFile;
    out.folder = url.substr(7);
    if (out.folder.empty() || out.folder[0] != '/')
      return Invalid("replica URL \"" + WithoutSecrets(url) +
                     "\": give an absolute path, as in file:///var/backups/app");
    while (out.folder.size() > 1 && out.folder.back() == '/') out.folder.pop_back();
    if (out.folder == "/") return Invalid("replica URL \"" + url + "\": the root folder cannot be a replica");
    return out;
  }
  if (url.rfind("s3://", 0) == 0) {
    out.kind = ReplicaUrl::kS3;
    const std::string rest = url.substr(5);
    const size_t slash = rest.find('/');
    out.bucket = rest.substr(0, slash);
    if (slash != std::string::npos) out.prefix = TrimSlashes(rest.substr(slash + 1));
    if (out.bucket.empty() ||
        out.bucket.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
            std::string::npos)
      return Invalid("replica URL \"" + WithoutSecrets(url) + "\": give bucket and prefix, as in s3://bucket/app");
    return out;
  }
  return Invalid("replica URL \"" + WithoutSecrets(url) + "\": give file:///folder or s3://bucket/prefix");
}

Result<Config> ReadConfig(const Environment& environment) {
  auto get = [&](std::initializer_list<const char*> names, std::string* used = nullptr) {
    for (const char* name : names) {
      const char* value = environment(name);
      if (value == nullptr || *value == 0) continue;
      if (used != nullptr) *used = name;
      return std::string(value);
    }
    return std::string();
  };
  Config config;
  AttachOptions& o = config.options;
  std::string name;

  config.url = get({"REPLICA_URL"});
  const std::string bucket = get({"REPLICA_BUCKET", "LITESTREAM_REPLICA_BUCKET"});
  const std::string prefix = TrimSlashes(get({"REPLICA_PREFIX", "LITESTREAM_REPLICA_PREFIX"}));
  if (config.url.empty() && !bucket.empty()) config.url = "s3://" + bucket + (prefix.empty() ? "" : "/" + prefix);
  o.s3.access_key_id = get({"REPLICA_ACCESS_KEY_ID", "LITESTREAM_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"});
  o.s3.secret_access_key = get({"REPLICA_SECRET_ACCESS_KEY", "LITESTREAM_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"});
  o.s3.session_token = get({"REPLICA_SESSION_TOKEN", "AWS_SESSION_TOKEN"});
  o.s3.ca_file = get({"REPLICA_CA_FILE", "AWS_CA_BUNDLE"});
  if (std::string v = get({"REPLICA_REGION", "LITESTREAM_REPLICA_REGION", "AWS_REGION"}); !v.empty()) o.s3.region = v;
  if (std::string v = get({"REPLICA_ENDPOINT", "LITESTREAM_REPLICA_ENDPOINT", "AWS_ENDPOINT_URL_S3"}, &name);
      !v.empty()) {
    while (v.size() > 8 && v.back() == '/') v.pop_back();
    REPLICA_TRY(CheckEndpoint(v, name));
    o.s3.endpoint = v;
  }
  if (std::string v = get({"REPLICA_FORCE_PATH_STYLE"}); !v.empty()) {
    if (!ParseBool(v, &o.s3.path_style)) return Invalid("REPLICA_FORCE_PATH_STYLE: give true or false");
    o.path_style_set = true;
  }

  auto duration = [&](const char* variable, int64_t* micros) -> Status {
    const std::string v = get({variable});
    if (v.empty() || ParseDuration(v, micros)) return Ok();
    return Invalid(std::string(variable) + ": \"" + v + "\" is no duration: give 500ms, 10s, 5m or 24h");
  };
  REPLICA_TRY(duration("REPLICA_SYNC_INTERVAL", &o.engine.sync_interval));
  REPLICA_TRY(duration("REPLICA_SNAPSHOT_INTERVAL", &o.engine.snapshot_interval));
  REPLICA_TRY(duration("REPLICA_COMMIT_TIMEOUT", &o.commit_timeout));
  REPLICA_TRY(duration("REPLICA_SHUTDOWN_TIMEOUT", &config.shutdown_timeout));
  if (std::string v = get({"REPLICA_SPOOL_LIMIT"}); !v.empty() && !ParseBytes(v, &o.engine.spool_limit))
    return Invalid("REPLICA_SPOOL_LIMIT: \"" + v + "\" is no size: give bytes, or 256MiB, or 1GiB");
  if (std::string v = get({"REPLICA_SYNC"}); !v.empty()) {
    if (v != "commit" && v != "interval") return Invalid("REPLICA_SYNC: give \"interval\" or \"commit\"");
    o.wait_for_commit = v == "commit";
  }
  auto flag = [&](const char* variable, bool* out) -> Status {
    const std::string v = get({variable});
    if (v.empty() || ParseBool(v, out)) return Ok();
    return Invalid(std::string(variable) + ": give true or false");
  };
  REPLICA_TRY(flag("REPLICA_FENCING", &o.engine.fencing));
  REPLICA_TRY(flag("REPLICA_TAKEOVER", &o.engine.takeover));
  REPLICA_TRY(flag("REPLICA_GUARD", &o.guard));
  if (std::string v = get({"REPLICA_RESTORE"}); !v.empty()) {
    if (v != "auto" && v != "never") return Invalid("REPLICA_RESTORE: give \"auto\" or \"never\"");
    config.restore_missing = v == "auto";
  }
  const std::string list = get({"REPLICA_DATABASES"});
  for (size_t at = 0; at < list.size();) {
    size_t end = list.find(':', at);
    if (end == std::string::npos) end = list.size();
    const std::string pattern = list.substr(at, end - at);
    if (pattern.find('/') != std::string::npos && pattern[0] != '/')
      return Invalid("REPLICA_DATABASES: \"" + pattern +
                     "\" is relative: give an absolute path, or a file name without a slash");
    if (!pattern.empty()) config.databases.push_back(pattern);
    at = end + 1;
  }

  if (!o.s3.ca_file.empty() && ::access(o.s3.ca_file.c_str(), R_OK) != 0)
    return Invalid("REPLICA_CA_FILE (or AWS_CA_BUNDLE): " + o.s3.ca_file + " cannot be read");

  // Required when asked for; unless told otherwise, in production.
  const char* required = environment("REPLICA_REQUIRED");
  if (required != nullptr && *required != 0) {
    if (!ParseBool(required, &config.required)) return Invalid("REPLICA_REQUIRED: give 1 or 0");
    config.required_by = std::string("REPLICA_REQUIRED=") + required;
  } else {
    for (const char* variable : {"RAILS_ENV", "RACK_ENV", "NODE_ENV", "APP_ENV"})
      if (get({variable}) == "production" && !config.required) {
        config.required = true;
        config.required_by = std::string(variable) + "=production";
      }
  }

  bool s3 = true;
  if (!config.url.empty()) {
    auto url = ParseUrl(config.url);
    if (!url.ok()) return url.status().In("REPLICA_URL");
    s3 = url->kind == ReplicaUrl::kS3;
  } else {
    config.missing.emplace_back("REPLICA_URL, or REPLICA_BUCKET (or LITESTREAM_REPLICA_BUCKET)");
  }
  if (s3 && o.s3.access_key_id.empty())
    config.missing.emplace_back("REPLICA_ACCESS_KEY_ID (or LITESTREAM_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID)");
  if (s3 && o.s3.secret_access_key.empty())
    config.missing.emplace_back("REPLICA_SECRET_ACCESS_KEY (or LITESTREAM_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY)");
  return config;
}

std::string MissingMessage(const Config& config) {
  std::string out = "a replica is required (" + config.required_by + ") and not configured; missing: ";
  for (size_t i = 0; i < config.missing.size(); i++) out += (i == 0 ? "" : "; ") + config.missing[i];
  return out + ". Set them (file:///folder needs no keys), or set REPLICA_REQUIRED=0 to run without a replica";
}

Status ApplyJson(const std::string& text, AttachOptions* o) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object())
    return Invalid("replica_attach: the options are no JSON object, as in '{\"region\": \"eu-west-1\"}'");
  auto wrong = [](const std::string& key, const char* want) {
    return Invalid("replica_attach: option \"" + key + "\" must be " + want);
  };
  for (const auto& item : json.items()) {
    const std::string& key = item.key();
    const auto& value = item.value();
    auto text_option = [&](std::string* out) -> Status {
      if (!value.is_string()) return wrong(key, "a text");
      *out = value.get<std::string>();
      return Ok();
    };
    auto bool_option = [&](bool* out) -> Status {
      if (!value.is_boolean()) return wrong(key, "true or false");
      *out = value.get<bool>();
      return Ok();
    };
    auto millis_option = [&](int64_t* micros) -> Status {
      if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > INT64_C(1000000000000))
        return wrong(key, "a whole number of milliseconds");
      *micros = value.get<int64_t>() * 1000;
      return Ok();
    };
    if (key == "access_key_id") {
      REPLICA_TRY(text_option(&o->s3.access_key_id));
    } else if (key == "secret_access_key") {
      REPLICA_TRY(text_option(&o->s3.secret_access_key));
    } else if (key == "session_token") {
      REPLICA_TRY(text_option(&o->s3.session_token));
    } else if (key == "region") {
      REPLICA_TRY(text_option(&o->s3.region));
    } else if (key == "ca_file") {
      REPLICA_TRY(text_option(&o->s3.ca_file));
    } else if (key == "endpoint") {
      REPLICA_TRY(text_option(&o->s3.endpoint));
      REPLICA_TRY(CheckEndpoint(o->s3.endpoint, "replica_attach: option \"endpoint\""));
    } else if (key == "path_style") {
      REPLICA_TRY(bool_option(&o->s3.path_style));
      o->path_style_set = true;
    } else if (key == "sync") {
      std::string sync;
      REPLICA_TRY(text_option(&sync));
      if (sync != "commit" && sync != "interval") return wrong(key, "\"interval\" or \"commit\"");
      o->wait_for_commit = sync == "commit";
    } else if (key == "sync_interval_ms") {
      REPLICA_TRY(millis_option(&o->engine.sync_interval));
    } else if (key == "commit_timeout_ms") {
      REPLICA_TRY(millis_option(&o->commit_timeout));
    } else if (key == "snapshot_interval_ms") {
      REPLICA_TRY(millis_option(&o->engine.snapshot_interval));
    } else if (key == "spool_limit_bytes") {
      if (!value.is_number_unsigned()) return wrong(key, "a whole number of bytes");
      o->engine.spool_limit = value.get<uint64_t>();
    } else if (key == "takeover") {
      REPLICA_TRY(bool_option(&o->engine.takeover));
    } else if (key == "fencing") {
      REPLICA_TRY(bool_option(&o->engine.fencing));
    } else if (key == "guard") {
      REPLICA_TRY(bool_option(&o->guard));
    } else if (key == "schema") {
      REPLICA_TRY(text_option(&o->schema));
    } else {
      return Invalid(
          "replica_attach: there is no option \"" + key +
          "\"; known are access_key_id, secret_access_key, session_token, region, endpoint, path_style, ca_file, "
          "sync, sync_interval_ms, commit_timeout_ms, snapshot_interval_ms, spool_limit_bytes, takeover, fencing, "
          "guard, schema");
    }
  }
  return Ok();
}

bool Covers(const Config& config, const std::string& path) {
  if (config.url.empty() || !config.missing.empty()) return false;
  if (config.databases.empty()) return true;
  const std::string name = BaseName(path);
  for (const std::string& pattern : config.databases) {
    // A pattern without a slash is for the file name, wherever the file lies.
    const bool whole = pattern.find('/') != std::string::npos;
    if (::fnmatch(pattern.c_str(), whole ? path.c_str() : name.c_str(), whole ? FNM_PATHNAME : 0) == 0) return true;
  }
  return false;
}

}  // namespace replica

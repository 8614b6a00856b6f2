#include "config/settings.h"

#include <unistd.h>

#include "base/json.h"
#include "config/listen_address.h"
#include "config/parse.h"

namespace replica {
namespace {

using Options = AttachOptions;
using Text = const std::string&;

constexpr auto kText = SettingKind::kText;
constexpr auto kFlag = SettingKind::kFlag;
constexpr auto kMillis = SettingKind::kMillis;
constexpr auto kBytes = SettingKind::kBytes;
constexpr auto kDatabase = SettingScope::kDatabase;
constexpr auto kProcess = SettingScope::kProcess;

Status Choose(Text text, const char* yes, const char* no, bool* out) {
  if (text != yes && text != no) return Invalid("\"" + text + "\": give \"" + no + "\" or \"" + yes + "\"");
  *out = text == yes;
  return Ok();
}

Status CheckFlag(Text text) {
  bool ignored = false;
  return ParseFlag(text, &ignored);
}

Status CheckDuration(Text text) {
  int64_t ignored = 0;
  return ParseDuration(text, &ignored);
}

Status CheckEndpoint(Text text) {
  std::string ignored;
  return ParseEndpoint(text, &ignored);
}

Status Store(Text text, std::string* out) {
  *out = text;
  return Ok();
}

// Of credentials, which go into headers. A secret that is kept in a file often has a newline at its end.
Status StoreKey(Text text, std::string* out) {
  out->assign(text, 0, text.find_last_not_of("\r\n") + 1);
  for (const char c : *out)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) return Invalid("it holds a control character");
  return Ok();
}

constexpr Setting kSettings[] = {
    {"url",
     nullptr,
     {"REPLICA_URL"},
     kText,
     kProcess,
     false,
     "",
     "the replica: file:///folder or s3://bucket/prefix; databases lie below it under their file names",
     [](Text t, Options*) { return ParseUrl(t).status(); }},
    {"bucket",
     nullptr,
     {"REPLICA_BUCKET", "LITESTREAM_REPLICA_BUCKET"},
     kText,
     kProcess,
     false,
     "",
     "instead of url: the bucket",
     nullptr},
    {"prefix",
     nullptr,
     {"REPLICA_PREFIX", "LITESTREAM_REPLICA_PREFIX"},
     kText,
     kProcess,
     false,
     "",
     "the path in that bucket",
     nullptr},
    {"access-key-id",
     "access_key_id",
     {"REPLICA_ACCESS_KEY_ID", "LITESTREAM_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"},
     kText,
     kDatabase,
     true,
     "",
     "required for s3://",
     [](Text t, Options* o) { return StoreKey(t, &o->s3.access_key_id); }},
    {"secret-access-key",
     "secret_access_key",
     {"REPLICA_SECRET_ACCESS_KEY", "LITESTREAM_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"},
     kText,
     kDatabase,
     true,
     "",
     "required for s3://",
     [](Text t, Options* o) { return StoreKey(t, &o->s3.secret_access_key); }},
    {"session-token",
     "session_token",
     {"REPLICA_SESSION_TOKEN", "AWS_SESSION_TOKEN"},
     kText,
     kDatabase,
     true,
     "",
     "of temporary credentials",
     [](Text t, Options* o) { return StoreKey(t, &o->s3.session_token); }},
    {"region",
     "region",
     {"REPLICA_REGION", "LITESTREAM_REPLICA_REGION", "AWS_REGION"},
     kText,
     kDatabase,
     false,
     "what the store tells",
     "the bucket's region",
     [](Text t, Options* o) { return Store(t, &o->s3.region); }},
    {"endpoint",
     "endpoint",
     {"REPLICA_ENDPOINT", "LITESTREAM_REPLICA_ENDPOINT", "AWS_ENDPOINT_URL_S3"},
     kText,
     kDatabase,
     false,
     "Amazon's of the region",
     "https://host[:port] of another S3 than Amazon's",
     [](Text t, Options* o) { return ParseEndpoint(t, &o->s3.endpoint); }},
    {"force-path-style",
     "path_style",
     {"REPLICA_FORCE_PATH_STYLE"},
     kFlag,
     kDatabase,
     false,
     "true but for Amazon's endpoints",
     "the bucket in the path, not in the host name",
     [](Text t, Options* o) {
       o->path_style_set = true;
       return ParseFlag(t, &o->s3.path_style);
     }},
    {"ca-file",
     "ca_file",
     {"REPLICA_CA_FILE", "AWS_CA_BUNDLE"},
     kText,
     kDatabase,
     false,
     "the system's",
     "PEM file of a private CA",
     [](Text t, Options* o) -> Status {
       if (::access(t.c_str(), R_OK) != 0) return Invalid(t + " cannot be read");
       return Store(t, &o->s3.ca_file);
     }},
    {"sync",
     "sync",
     {"REPLICA_SYNC"},
     kText,
     kDatabase,
     false,
     "interval",
     "commit: COMMIT waits until the store has acknowledged",
     [](Text t, Options* o) { return Choose(t, "commit", "interval", &o->wait_for_commit); }},
    {"commit-timeout",
     "commit_timeout_ms",
     {"REPLICA_COMMIT_TIMEOUT"},
     kMillis,
     kDatabase,
     false,
     "10s",
     "how long; then COMMIT answers SQLITE_IOERR: the commit stands, unacknowledged",
     [](Text t, Options* o) { return ParseDuration(t, &o->commit_timeout); }},
    {"sync-interval",
     "sync_interval_ms",
     {"REPLICA_SYNC_INTERVAL"},
     kMillis,
     kDatabase,
     false,
     "1s",
     "least time between starts of PUTs; 0: as fast as the store answers",
     [](Text t, Options* o) { return ParseDuration(t, &o->engine.sync_interval); }},
    {"snapshot-interval",
     "snapshot_interval_ms",
     {"REPLICA_SNAPSHOT_INTERVAL"},
     kMillis,
     kDatabase,
     false,
     "24h",
     "a snapshot is also made when the log outgrows the last one",
     [](Text t, Options* o) -> Status {
       REPLICA_TRY(ParseDuration(t, &o->engine.snapshot_interval));
       // An uploader process is told in milliseconds.
       return o->engine.snapshot_interval >= 1000 ? Ok() : Invalid("give at least 1ms");
     }},
    {"spool-limit",
     "spool_limit_bytes",
     {"REPLICA_SPOOL_LIMIT"},
     kBytes,
     kDatabase,
     false,
     "the database's size, at least 256MiB",
     "over it captured segments are dropped and healed by difference",
     [](Text t, Options* o) { return ParseBytes(t, &o->engine.spool_limit); }},
    {"takeover",
     "takeover",
     {"REPLICA_TAKEOVER"},
     kFlag,
     kDatabase,
     false,
     "false",
     "continue a history that another writer holds, or that this database's folder does not know",
     [](Text t, Options* o) { return ParseFlag(t, &o->engine.takeover); }},
    {"fencing",
     "fencing",
     {"REPLICA_FENCING"},
     kFlag,
     kDatabase,
     false,
     "true",
     "false: accept a store without conditional PUT; then two writers can destroy each other's log",
     [](Text t, Options* o) { return ParseFlag(t, &o->engine.fencing); }},
    {"guard",
     "guard",
     {"REPLICA_GUARD"},
     kFlag,
     kDatabase,
     false,
     "false",
     "keep processes without libreplica from restarting the WAL before it is captured",
     [](Text t, Options* o) { return ParseFlag(t, &o->guard); }},
    {"restore",
     nullptr,
     {"REPLICA_RESTORE"},
     kText,
     kDatabase,
     false,
     "never",
     "auto: a configured database that is missing is restored before it is opened",
     [](Text t, Options* o) { return Choose(t, "auto", "never", &o->restore_missing); }},
    {"uploader",
     "uploader",
     {"REPLICA_UPLOADER"},
     kText,
     kDatabase,
     false,
     "thread",
     "process: upload in a process of its own, which the extension starts, watches and stops",
     [](Text t, Options* o) { return Choose(t, "process", "thread", &o->uploader_process); }},
    {"vfs-allow",
     nullptr,
     {"REPLICA_VFS_ALLOW"},
     kText,
     kProcess,
     false,
     "",
     "names of VFSes besides SQLite's own unix VFSes whose databases may be replicated, comma-separated: only ones "
     "that "
     "pass every page on as it is",
     nullptr},
    {"uploader-command",
     nullptr,
     {"REPLICA_UPLOADER_COMMAND"},
     kText,
     kProcess,
     false,
     "replica beside the library, else in PATH",
     "the program that uploader=process starts",
     nullptr},
    {"databases",
     nullptr,
     {"REPLICA_DATABASES"},
     kText,
     kProcess,
     false,
     "all",
     "paths or globs, colon-separated; one without a slash is for the file name. The command reads every folder that a "
     "glob may mean",
     nullptr},
    {"required",
     nullptr,
     {"REPLICA_REQUIRED"},
     kFlag,
     kProcess,
     false,
     "true in production",
     "loading fails unless a replica is configured. Production is RAILS_ENV, RACK_ENV, NODE_ENV or APP_ENV = "
     "production",
     [](Text t, Options*) { return CheckFlag(t); }},
    {"shutdown-timeout",
     nullptr,
     {"REPLICA_SHUTDOWN_TIMEOUT"},
     kMillis,
     kProcess,
     false,
     "10s",
     "flush at the last close and at process exit",
     [](Text t, Options*) { return CheckDuration(t); }},
    {"exec",
     nullptr,
     {"REPLICA_EXEC"},
     kText,
     kProcess,
     false,
     "",
     "replica replicate: run this command, and end with it",
     nullptr},
    {"metrics-listen",
     nullptr,
     {"REPLICA_METRICS_LISTEN"},
     kText,
     kProcess,
     false,
     "",
     "replica replicate: address:port of /metrics and /healthz; open to all who reach it, unless "
     "dashboard.metrics-token "
     "is set",
     [](Text t, Options*) { return ParseListenAddress(t).status(); }},
    {"dashboard.listen",
     nullptr,
     {"REPLICA_DASHBOARD_LISTEN"},
     kText,
     kProcess,
     false,
     "127.0.0.1:3030",
     "address:port of the dashboard",
     [](Text t, Options*) { return ParseListenAddress(t).status(); }},
    {"dashboard.user",
     nullptr,
     {"REPLICA_DASHBOARD_USER", "LITESTREAM_USERNAME"},
     kText,
     kProcess,
     false,
     "admin",
     "user of the dashboard",
     nullptr},
    {"dashboard.password-hash",
     nullptr,
     {"REPLICA_DASHBOARD_PASSWORD_HASH"},
     kText,
     kProcess,
     true,
     "a new password at each start, printed on the terminal",
     "crypt(5) hash, as `replica dashboard --hash-password` prints it",
     nullptr},
    {"dashboard.tls-certificate",
     nullptr,
     {"REPLICA_DASHBOARD_TLS_CERTIFICATE"},
     kText,
     kProcess,
     false,
     "",
     "PEM file; with it the dashboard speaks HTTPS",
     nullptr},
    {"dashboard.tls-key", nullptr, {"REPLICA_DASHBOARD_TLS_KEY"}, kText, kProcess, false, "", "PEM file", nullptr},
    {"dashboard.public-url",
     nullptr,
     {"REPLICA_DASHBOARD_PUBLIC_URL"},
     kText,
     kProcess,
     false,
     "",
     "https://host under which a reverse proxy on this machine offers the dashboard",
     [](Text t, Options*) { return CheckEndpoint(t); }},
    {"dashboard.metrics-token",
     nullptr,
     {"REPLICA_DASHBOARD_METRICS_TOKEN"},
     kText,
     kProcess,
     true,
     "",
     "bearer token that /metrics wants; without one it answers on loopback only",
     nullptr},
    {"dashboard.max-lag",
     nullptr,
     {"REPLICA_DASHBOARD_MAX_LAG"},
     kMillis,
     kProcess,
     false,
     "60s",
     "/healthz fails when a database lags more",
     [](Text t, Options*) { return CheckDuration(t); }},
};

// The text of a JSON option, by what the table says it is.
Status JsonText(const Setting& setting, const Json& value, std::string* out) {
  auto wrong = [&](const char* want) {
    return Invalid(std::string("replica_attach: option \"") + setting.option + "\" must be " + want);
  };
  switch (setting.kind) {
    case kText:
      if (value.text() == nullptr) return wrong("a text");
      *out = *value.text();
      return Ok();
    case kFlag:
      if (value.flag() == nullptr) return wrong("true or false");
      *out = *value.flag() ? "true" : "false";
      return Ok();
    case kMillis:
      if (!value.natural() || *value.natural() > UINT64_C(1000000000000))
        return wrong("a whole number of milliseconds");
      *out = std::to_string(*value.natural()) + "ms";
      return Ok();
    case kBytes:
      if (!value.natural()) return wrong("a whole number of bytes");
      *out = std::to_string(*value.natural());
      return Ok();
  }
  return Ok();
}

}  // namespace

std::span<const Setting> AllSettings() {
  return kSettings;
}

const Setting* FindSetting(const std::string& key) {
  for (const Setting& setting : kSettings)
    if (key == setting.key) return &setting;
  return nullptr;
}

Status ApplyValues(const Values& values, AttachOptions* options) {
  for (const auto& [key, value] : values) {
    const Setting* setting = FindSetting(key);
    if (setting == nullptr || setting->apply == nullptr) continue;
    Status status = setting->apply(value.text, options);
    // A variable's name says which setting it is; a place in a file does not.
    const bool file = value.source.find(':') != std::string::npos;
    if (!status.ok()) return status.In(file ? value.source + ": " + key : value.source);
  }
  return Ok();
}

Status ApplyJson(const std::string& text, AttachOptions* options) {
  const std::optional<Json> json = Json::Parse(text);
  if (!json || !json->is_object())
    return Invalid("replica_attach: the options are no JSON object, as in '{\"region\": \"eu-west-1\"}'");
  const std::string endpoint = options->s3.endpoint;
  for (const auto& [name, given] : json->members()) {
    if (name == "schema") {
      if (given.text() == nullptr) return Invalid("replica_attach: option \"schema\" must be a text");
      options->schema = *given.text();
      continue;
    }
    const Setting* found = nullptr;
    std::string known;
    for (const Setting& setting : kSettings) {
      if (setting.option == nullptr) continue;
      known.append(setting.option).append(", ");
      if (name == setting.option) found = &setting;
    }
    if (found == nullptr)
      return Invalid("replica_attach: there is no option \"" + name + "\"; known are " + known.append("schema"));
    std::string value;
    REPLICA_TRY(JsonText(*found, given, &value));
    Status status = found->apply(value, options);
    if (!status.ok()) return status.In(std::string("replica_attach: option \"") + found->option + "\"");
  }
  if (options->s3.endpoint != endpoint && !(json->contains("access_key_id") && json->contains("secret_access_key"))) {
    // The keys that are configured are for the server that is configured, and not for one that a statement names: not
    // one of them beside a key of the statement's own, either.
    options->s3.access_key_id.clear();
    options->s3.secret_access_key.clear();
    options->s3.session_token.clear();
  } else if (json->contains("access_key_id") && !json->contains("session_token")) {
    options->s3.session_token.clear();  // it belongs to the other key
  }
  return Ok();
}

std::string OptionsAsJson(const AttachOptions& o) {
  Json out =
      Json::Of("access_key_id", o.s3.access_key_id, "secret_access_key", o.s3.secret_access_key, "session_token",
               o.s3.session_token, "region", o.s3.region, "sync", o.wait_for_commit ? "commit" : "interval",
               "commit_timeout_ms", o.commit_timeout / 1000, "sync_interval_ms", o.engine.sync_interval / 1000,
               "snapshot_interval_ms", o.engine.snapshot_interval / 1000, "spool_limit_bytes", o.engine.spool_limit,
               "takeover", o.engine.takeover, "fencing", o.engine.fencing, "guard", o.guard);
  if (!o.s3.endpoint.empty()) out["endpoint"] = o.s3.endpoint;
  if (o.path_style_set) out["path_style"] = o.s3.path_style;
  if (!o.s3.ca_file.empty()) out["ca_file"] = o.s3.ca_file;
  return out.Dump();
}

std::string Shown(const Setting& setting, const std::string& text) {
  if (text.empty()) return "";
  // A command line may hold anything.
  if (setting.key == std::string("exec")) return "(a command)";
  return setting.secret ? "********" : text;
}

}  // namespace replica

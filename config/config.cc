#include "config/config.h"

#include <fnmatch.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/fs.h"
#include "config/config_file.h"
#include "config/parse.h"

namespace replica {
namespace {

constexpr char kUrlNames[] = "REPLICA_URL, or REPLICA_BUCKET (or LITESTREAM_REPLICA_BUCKET)";
constexpr char kKeyNames[] = "REPLICA_ACCESS_KEY_ID (or LITESTREAM_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID)";
constexpr char kSecretNames[] = "REPLICA_SECRET_ACCESS_KEY (or LITESTREAM_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY)";

// Not in the table of settings: where its values come from; what the rake tasks of docs/rails.md call.
constexpr const char* kOtherVariables[] = {"REPLICA_CONFIG", "LITESTREAM_CONFIG", "REPLICA_COMMAND"};

void AddOnce(std::vector<std::string>* list, const std::string& text) {
  if (std::find(list->begin(), list->end(), text) == list->end()) list->push_back(text);
}

std::string Variable(const Environment& environment, const std::string& name) {
  auto found = environment.find(name);
  return found == environment.end() ? "" : found->second;
}

Values FromEnvironment(const Environment& environment) {
  Values values;
  for (const Setting& setting : AllSettings()) {
    for (const char* name : setting.environment) {
      if (name == nullptr) break;
      const std::string text = Variable(environment, name);
      if (text.empty()) continue;
      values[setting.key] = {text, name};
      break;
    }
  }
  // Key, secret and token belong together: the first family of names that has both counts, with its token or none.
  for (const std::string family : {"REPLICA_", "LITESTREAM_", "AWS_"}) {
    const std::string key = Variable(environment, family + "ACCESS_KEY_ID");
    const std::string secret = Variable(environment, family + "SECRET_ACCESS_KEY");
    if (key.empty() || secret.empty()) continue;
    values["access-key-id"] = {key, family + "ACCESS_KEY_ID"};
    values["secret-access-key"] = {secret, family + "SECRET_ACCESS_KEY"};
    const auto token = values.find("session-token");
    if (token != values.end() && token->second.source.rfind(family, 0) != 0) values.erase(token);
    return values;
  }
  // Halves of several families are no pair: that of the first counts, and the other is missing.
  for (const std::string family : {"REPLICA_", "LITESTREAM_", "AWS_"}) {
    if (Variable(environment, family + "ACCESS_KEY_ID").empty() &&
        Variable(environment, family + "SECRET_ACCESS_KEY").empty())
      continue;
    for (const char* name : {"access-key-id", "secret-access-key", "session-token"})
      if (auto found = values.find(name); found != values.end() && found->second.source.rfind(family, 0) != 0)
        values.erase(found);
    break;
  }
  return values;
}

// The values of a more specific place over those of a more general one.
void PutOver(const Values& specific, Values* values) {
  const bool key = specific.count("access-key-id") != 0;
  const bool secret = specific.count("secret-access-key") != 0;
  // They belong together: half of a pair is not completed from a place that has another.
  if (key || secret)
    for (const char* name : {"access-key-id", "secret-access-key", "session-token"}) values->erase(name);
  for (const auto& [name, value] : specific) (*values)[name] = value;
}

// A name that begins as ours do and is none of them is most likely misspelt.
void WarnOfUnknown(const Environment& environment, std::vector<std::string>* warnings) {
  for (const auto& [name, text] : environment) {
    if (name.rfind("REPLICA_", 0) != 0 || name.rfind("REPLICA_TEST_", 0) == 0) continue;
    bool known = std::find(std::begin(kOtherVariables), std::end(kOtherVariables), name) != std::end(kOtherVariables);
    for (const Setting& setting : AllSettings())
      for (const char* own : setting.environment) known = known || (own != nullptr && name == own);
    if (!known) warnings->push_back("environment: there is no setting " + name);
  }
}

std::string BaseUrl(const Values& values) {
  auto get = [&](const char* key) {
    auto found = values.find(key);
    return found == values.end() ? std::string() : found->second.text;
  };
  if (!get("url").empty()) return get("url");
  const std::string bucket = get("bucket");
  const std::string prefix = TrimSlashes(get("prefix"));
  return bucket.empty() ? "" : "s3://" + bucket + (prefix.empty() ? "" : "/" + prefix);
}

// Completes a rule whose place, URL and values are set: parses them and notes what is missing. `in_folder`: the replica
// is a folder although its URL is not known.
Status Finish(DatabaseRule* rule, bool in_folder) {
  REPLICA_TRY(ApplyValues(rule->values, &rule->options));
  bool s3 = !in_folder;
  if (!rule->url.empty()) {
    while (rule->url.size() > 1 && rule->url.back() == '/') rule->url.pop_back();
    auto url = ParseUrl(rule->url);
    if (!url.ok()) return url.status().In(rule->place);
    s3 = url->kind == ReplicaUrl::kS3;
  } else if (rule->missing.empty()) {
    rule->missing.emplace_back(kUrlNames);
  }
  if (s3 && rule->options.s3.access_key_id.empty()) rule->missing.emplace_back(kKeyNames);
  if (s3 && rule->options.s3.secret_access_key.empty()) rule->missing.emplace_back(kSecretNames);
  return Ok();
}

Status AddEnvironmentRules(const std::string& url, Config* config) {
  DatabaseRule rule;
  rule.url = url;
  rule.values = config->values;
  const auto given = config->values.find(config->values.count("url") != 0 ? "url" : "bucket");
  rule.place = given == config->values.end() ? "" : given->second.source;
  REPLICA_TRY(Finish(&rule, false));
  for (const std::string& name : rule.missing) AddOnce(&config->missing, name);
  for (std::string& pattern : SplitList(config->Get("databases", "*"), ':')) {
    rule.pattern = std::move(pattern);
    if (rule.pattern.find('/') != std::string::npos && rule.pattern[0] != '/')
      return Invalid(config->values["databases"].source + ": \"" + rule.pattern +
                     "\" is relative: give an absolute path, or a file name without a slash");
    if (!url.empty()) config->rules.push_back(rule);
  }
  return Ok();
}

Status AddFileRules(const ConfigFile& file, const std::string& base, Config* config) {
  for (const FileEntry& entry : file.databases) {
    DatabaseRule rule;
    rule.place = entry.place;
    rule.missing = entry.missing;
    rule.values = config->values;
    PutOver(entry.values, &rule.values);
    if (!entry.path.empty()) {
      rule.path = FullPath(entry.path);
      rule.written = AbsolutePath(entry.path);
    } else if (!entry.folder.empty()) {
      rule.folder = FullPath(entry.folder);
      rule.written = AbsolutePath(entry.folder);
      rule.pattern = entry.pattern;
      rule.recursive = entry.recursive;
      if (!FileExists(rule.folder))
        config->warnings.push_back(entry.place + ": there is no folder " + rule.folder + " (yet)");
    } else if (entry.missing.empty()) {
      continue;
    }
    rule.url = entry.url;
    // Without a replica of its own it lies below the common one.
    if (rule.url.empty() && !base.empty() && entry.missing.empty())
      rule.url = base + (rule.path.empty() ? "" : "/" + BaseName(rule.path));
    REPLICA_TRY(Finish(&rule, entry.in_folder));
    for (const std::string& name : rule.missing) AddOnce(&config->missing, name);
    for (const DatabaseRule& other : config->rules) {
      if (!rule.path.empty() && other.path == rule.path)
        return Invalid(rule.place + ": " + rule.path + " is configured already (" + other.place + ")");
      if (!rule.url.empty() && other.url == rule.url)
        return Invalid(rule.place + ": " + rule.url + " is the replica of another database already (" + other.place +
                       "): give each a path of its own");
    }
    config->rules.push_back(std::move(rule));
  }
  return Ok();
}

Status ReadRequired(const Environment& environment, Config* config) {
  // Required when asked for; unless told otherwise, in production.
  if (auto found = config->values.find("required"); found != config->values.end()) {
    Status status = ParseFlag(found->second.text, &config->required);
    if (!status.ok()) return status.In(found->second.source);
    const bool file = found->second.source.find(':') != std::string::npos;
    config->required_by = found->second.source + (file ? ": required: " : "=") + found->second.text;
    return Ok();
  }
  for (const char* name : {"RAILS_ENV", "RACK_ENV", "NODE_ENV", "APP_ENV"})
    if (Variable(environment, name) == "production" && !config->required) {
      config->required = true;
      config->required_by = std::string(name) + "=production";
    }
  return Ok();
}

}  // namespace

std::string AbsolutePath(std::string path) {
  std::error_code error;
  std::string out = std::filesystem::absolute(ExpandHome(std::move(path)), error).lexically_normal().string();
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

std::string FullPath(std::string path) {
  std::error_code error;
  const std::string absolute = AbsolutePath(std::move(path));
  const auto real = std::filesystem::weakly_canonical(absolute, error);
  std::string out = error ? absolute : real.string();
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

Environment ProcessEnvironment() {
  Environment out;
  // A program with more rights than its caller (setuid, capabilities) takes nothing from the caller's environment: it
  // names programs to run and servers to send the database to.
  if (::getauxval(AT_SECURE) != 0) return out;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; entry++) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) out[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return out;
}

bool DatabaseRule::Fits(const std::string& database) const {
  if (!path.empty()) return database == path;
  const std::string name = BaseName(database);
  if (!folder.empty()) {
    const std::string parent = ParentFolder(database);
    const bool below = recursive && parent.rfind(folder + "/", 0) == 0;
    return (parent == folder || below) && ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  }
  // A pattern without a slash is for the file name, wherever the file lies.
  const bool whole = pattern.find('/') != std::string::npos;
  return ::fnmatch(pattern.c_str(), whole ? database.c_str() : name.c_str(), whole ? FNM_PATHNAME : 0) == 0;
}

std::string DatabaseRule::UrlOf(const std::string& database) const {
  if (!path.empty()) return url;
  if (!folder.empty()) return url + database.substr(folder.size());
  return url + "/" + BaseName(database);
}

const DatabaseRule* Config::FindRule(const std::string& database) const {
  const DatabaseRule* found = nullptr;
  for (const DatabaseRule& rule : rules) {
    if (!rule.Fits(database)) continue;
    if (!rule.path.empty()) return &rule;  // says more than any pattern
    if (found == nullptr) found = &rule;
  }
  return found;
}

std::string Config::Get(const std::string& key, const std::string& otherwise) const {
  auto found = values.find(key);
  return found == values.end() ? otherwise : found->second.text;
}

Result<Config> ReadConfig(const Environment& environment) {
  Config config;
  config.values = FromEnvironment(environment);
  WarnOfUnknown(environment, &config.warnings);
  ConfigFile file;
  const FoundConfig found_file = FindConfigFile(environment);
  config.file = found_file.path;
  if (config.values.count("url") != 0 && config.values.count("bucket") != 0)
    config.warnings.push_back("environment: " + config.values["bucket"].source + " does nothing beside " +
                              config.values["url"].source);
  if (!config.file.empty()) {
    REPLICA_ASSIGN(file, ReadConfigFile(found_file, environment));
    // A URL of the file is not to be mixed with a bucket of the environment, or the other way round.
    if (file.values.count("url") + file.values.count("bucket") != 0)
      for (const char* key : {"url", "bucket", "prefix"}) config.values.erase(key);
    PutOver(file.values, &config.values);
    config.warnings.insert(config.warnings.end(), file.warnings.begin(), file.warnings.end());
    config.missing = file.missing;
  }
  REPLICA_TRY(ApplyValues(config.values, &config.options));
  REPLICA_TRY(ReadRequired(environment, &config));
  if (auto found = config.values.find("shutdown-timeout"); found != config.values.end()) {
    Status status = ParseDuration(found->second.text, &config.shutdown_timeout);
    if (!status.ok()) return status.In(found->second.source + ": shutdown-timeout");
  }
  if (auto prefix = config.values.find("prefix"); prefix != config.values.end() && config.values.count("bucket") == 0)
    config.warnings.push_back(prefix->second.source + ": prefix does nothing without a bucket; put it into the URL");
  if (auto list = config.values.find("databases"); list != config.values.end() && !file.lists_from.empty())
    config.warnings.push_back(list->second.source + ": databases does nothing beside dbs (" + file.lists_from + ")");
  const std::string base = BaseUrl(config.values);
  // A file that lists databases means these and no others, none if it lists none.
  if (file.lists_from.empty()) {
    REPLICA_TRY(AddEnvironmentRules(base, &config));
  } else {
    REPLICA_TRY(AddFileRules(file, base, &config));
    if (file.databases.empty()) config.missing.push_back("a database (" + file.lists_from + ": dbs lists none)");
  }
  return config;
}

std::string Join(const std::vector<std::string>& texts, const std::string& between) {
  std::string out;
  for (size_t i = 0; i < texts.size(); i++) out += (i == 0 ? "" : between) + texts[i];
  return out;
}

std::string MissingMessage(const Config& config) {
  return "a replica is required (" + config.required_by +
         ") and not configured; missing: " + Join(config.missing, "; ") +
         ". Set them (file:///folder needs no keys), or set REPLICA_REQUIRED=0 to run without a replica";
}

}  // namespace replica

#include "cli/settings_report.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

ordered_json OneSetting(const Setting& setting, const Values& values, bool s3) {
  const auto found = values.find(setting.key);
  const bool set = found != values.end();
  const std::string key = setting.key;
  return {{"key", key},
          {"name", setting.environment[0]},
          {"value", set ? Shown(setting, found->second.text) : setting.fallback},
          {"source", set ? found->second.source : "default"},
          {"secret", setting.secret},
          {"set", set},
          {"required", key == "url" || (s3 && (key == "access-key-id" || key == "secret-access-key"))},
          {"meaning", setting.meaning}};
}

}  // namespace

ordered_json SettingsReport(const Config& config) {
  bool s3 = config.rules.empty();
  ordered_json databases = ordered_json::array();
  for (const DatabaseRule& rule : config.rules) {
    s3 = s3 || rule.url.rfind("s3://", 0) == 0;
    ordered_json entry;
    if (!rule.path.empty()) {
      entry["path"] = rule.path;
    } else if (!rule.folder.empty()) {
      entry["folder"] = rule.folder;
    }
    if (!rule.pattern.empty()) entry["pattern"] = rule.pattern;
    entry["replica"] = rule.url;
    entry["place"] = rule.place;
    entry["missing"] = rule.missing;
    ordered_json settings = ordered_json::array();
    for (const auto& [key, value] : rule.values) {
      const auto common = config.values.find(key);
      const bool own = common == config.values.end() || common->second.source != value.source;
      const Setting* setting = FindSetting(key);
      if (own && setting != nullptr) settings.push_back(OneSetting(*setting, rule.values, false));
    }
    entry["settings"] = settings;
    databases.push_back(std::move(entry));
  }
  ordered_json settings = ordered_json::array();
  for (const Setting& setting : AllSettings()) settings.push_back(OneSetting(setting, config.values, s3));
  return {{"file", config.file.empty() ? ordered_json() : ordered_json(config.file)},
          {"required", config.required},
          {"required_by", config.required_by},
          {"missing", config.missing},
          {"warnings", config.warnings},
          {"settings", settings},
          {"databases", databases}};
}

}  // namespace replica

#include "cli/settings_report.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

// True when some database's replica takes the setting from the common place, or would if it were given there.
bool IsNeeded(const Config& config, const Setting& setting) {
  const std::string key = setting.key;
  if (key != "url" && key != "access-key-id" && key != "secret-access-key") return false;
  if (config.rules.empty()) return true;
  const auto common = config.values.find(key);
  for (const DatabaseRule& rule : config.rules) {
    for (const std::string& missing : rule.missing)
      if (missing.rfind(setting.environment[0], 0) == 0) return true;
    const auto own = rule.values.find(key);
    if (key != "url" && common != config.values.end() && own != rule.values.end() &&
        own->second.source == common->second.source && rule.url.rfind("s3://", 0) == 0)
      return true;
  }
  return false;
}

ordered_json OneSetting(const Setting& setting, const Values& values, bool required) {
  const auto found = values.find(setting.key);
  const bool set = found != values.end();
  const std::string key = setting.key;
  return {{"key", key},
          {"name", setting.environment[0]},
          {"value", set ? Shown(setting, found->second.text) : setting.fallback},
          {"source", set ? found->second.source : "default"},
          {"secret", setting.secret},
          {"set", set},
          {"required", required},
          {"meaning", setting.meaning}};
}

}  // namespace

ordered_json SettingsReport(const Config& config) {
  ordered_json databases = ordered_json::array();
  for (const DatabaseRule& rule : config.rules) {
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
  for (const Setting& setting : AllSettings())
    settings.push_back(OneSetting(setting, config.values, IsNeeded(config, setting)));
  return {{"file", config.file.empty() ? ordered_json() : ordered_json(config.file)},
          {"required", config.required},
          {"required_by", config.required_by},
          {"missing", config.missing},
          {"warnings", config.warnings},
          {"settings", settings},
          {"databases", databases}};
}

}  // namespace replica

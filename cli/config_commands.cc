// Commands about the settings: config prints them, check tries them.
#include <fcntl.h>
#include <unistd.h>

#include <set>

#include "base/call_off.h"
#include "base/fs.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/session.h"
#include "cli/settings_report.h"
#include "ext/hub.h"
#include "uploader/store_check.h"
#include "vfs/database.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

Result<Config> Read(const Common& common) {
  Environment environment = ProcessEnvironment();
  if (!common.config.empty()) environment["REPLICA_CONFIG"] = common.config;
  return ReadConfig(environment);
}

std::string Text(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

void PrintSettings(const Output& output, const ordered_json& settings, bool all) {
  std::vector<std::vector<Output::Cell>> rows;
  for (const auto& s : settings) {
    if (!all && !s["set"].get<bool>()) continue;
    const Ink ink = s["set"].get<bool>() ? Ink::kPlain : Ink::kFaint;
    rows.push_back({{Text(s, "key"), ink}, {Text(s, "value"), ink}, {Text(s, "source"), Ink::kFaint}});
    if (all) rows.back().push_back({Text(s, "name"), Ink::kFaint});
  }
  std::vector<std::string> heads = {"SETTING", "VALUE", "FROM"};
  if (all) heads.emplace_back("VARIABLE");
  if (rows.empty()) {
    output.Line("No setting is given.");
  } else {
    output.Table(heads, rows);
  }
}

void PrintConfig(const Output& output, const ordered_json& report, bool all) {
  output.Line("Configuration file: " + (report["file"].is_null() ? std::string("none") : Text(report, "file")));
  if (report["required"].get<bool>()) output.Line("A replica is required (" + Text(report, "required_by") + ").");
  output.Line("");
  PrintSettings(output, report["settings"], all);
  for (const auto& d : report["databases"]) {
    const std::string what = d.contains("path")     ? Text(d, "path")
                             : d.contains("folder") ? Text(d, "folder") + "/" + Text(d, "pattern")
                                                    : "databases " + Text(d, "pattern");
    output.Line("");
    output.Line(what + "  ->  " + (Text(d, "replica").empty() ? "?" : Text(d, "replica")) + "  (" + Text(d, "place") +
                ")");
    if (!d["settings"].empty()) PrintSettings(output, d["settings"], false);
  }
  if (!report["warnings"].empty() || !report["missing"].empty()) output.Line("");
  for (const auto& w : report["warnings"]) output.Line(output.Painted("warning: " + w.get<std::string>(), Ink::kWarn));
  for (const auto& m : report["missing"]) output.Line(output.Painted("missing: " + m.get<std::string>(), Ink::kBad));
}

// The database's part of a check, for one that exists.
std::vector<CheckStep> CheckDatabase(const std::string& path) {
  std::vector<CheckStep> steps;
  // Bytes 18 and 19 of the header: 2 in WAL mode (https://sqlite.org/fileformat2.html#file_format_version_numbers).
  // This process has no connection to it, so opening and closing the file drops no lock of ours.
  char header[100] = "";
  auto fd = OpenFile(path, O_RDONLY);
  auto n = fd.ok() ? ReadAt(fd->get(), header, sizeof header, 0, path) : fd.status();
  if (!n.ok()) {
    steps.push_back({CheckStep::kFailed, "database", n.status().message()});
  } else if (*n == 0) {
    steps.push_back({CheckStep::kPassed, "database", path + " is empty; it begins with its first commit in WAL mode"});
  } else if (*n < sizeof header || std::string(header, 15) != "SQLite format 3") {
    steps.push_back({CheckStep::kFailed, "database", path + " is no SQLite database"});
  } else if (header[18] != 2) {
    steps.push_back(
        {CheckStep::kFailed, "database", path + " is not in WAL mode: run PRAGMA journal_mode=WAL on it once"});
  } else {
    steps.push_back({CheckStep::kPassed, "database", path + " is in WAL mode"});
  }
  const std::string folder = FileExists(Database::FolderOf(path)) ? Database::FolderOf(path) : ParentFolder(path);
  // With the rights of the file system's user, which as root is the database's owner.
  const std::string probe = folder + "/.replica-check-" + std::to_string(::getpid());
  const bool writable = OpenFile(probe, O_WRONLY | O_CREAT | O_EXCL).ok();
  if (writable) (void)RemoveFile(probe);
  steps.push_back({writable ? CheckStep::kPassed : CheckStep::kFailed, "folder",
                   writable ? folder + " can be written" : folder + " cannot be written by this user"});
  return steps;
}

struct CheckTarget {
  std::string name;  // URL
  std::string database;
  std::string folder;  // that a rule looks for databases in
  std::vector<std::string> missing;
  std::string url;
  AttachOptions options;
};

std::vector<CheckTarget> Targets(const Session& session, const CheckArguments& arguments) {
  std::vector<CheckTarget> out;
  auto add = [&](const DatabaseRule* rule, const std::string& database, const std::string& url) {
    CheckTarget target;
    target.database = database;
    target.url = url;
    target.name = url.empty() && rule != nullptr ? rule->place : url;
    target.options = rule != nullptr ? rule->options : session.config().options;
    if (rule != nullptr) {
      target.missing = rule->missing;
      target.folder = rule->folder;
    }
    out.push_back(std::move(target));
  };
  for (const std::string& named : arguments.replicas) {
    if (IsUrl(named)) {
      add(nullptr, "", named);
      continue;
    }
    const std::string path = FullPath(named);
    const DatabaseRule* rule = session.config().FindRule(path);
    CheckTarget none;
    none.name = none.database = path;
    none.missing = {"the configuration does not name a replica for it"};
    if (rule == nullptr) {
      out.push_back(std::move(none));
    } else {
      add(rule, path, rule->UrlOf(path));
    }
  }
  if (!arguments.replicas.empty()) return out;
  std::set<std::string> seen;
  for (const DatabaseRule& rule : session.config().rules)
    if (!rule.path.empty() || seen.insert(rule.url + rule.options.s3.access_key_id).second)
      add(&rule, rule.path, rule.url);
  return out;
}

}  // namespace

int RunConfig(const Common& common, const ConfigArguments& arguments) {
  const Output output(common.output);
  auto config = Read(common);
  if (!config.ok()) {
    output.Error(config.status());
    return kExitInput;
  }
  const ordered_json report = SettingsReport(*config);
  if (output.json()) {
    output.Json(report);
  } else {
    PrintConfig(output, report, arguments.all);
  }
  return config->missing.empty() ? kExitOk : kExitNo;
}

int RunCheck(const Common& common, const CheckArguments& arguments) {
  const Output output(common.output);
  CatchSignals();
  const CallOff call_off(Interrupted);
  auto session = Session::Create(common.config, false);
  if (!session.ok()) {
    output.Error(session.status());
    return ExitCodeOf(session.status());
  }
  const auto targets = Targets(**session, arguments);
  if (targets.empty()) {
    const Status none(Code::kInvalidArgument, "nothing to check: missing: " + Join((*session)->config().missing, "; ") +
                                                  "; or name a database or a replica's URL");
    output.Error(none);
    return ExitCodeOf(none);
  }
  bool failed = false;
  bool interrupted = false;
  ordered_json checks = ordered_json::array();
  for (const CheckTarget& target : targets) {
    std::vector<CheckStep> steps;
    const bool complete = target.missing.empty();
    steps.push_back({complete ? CheckStep::kPassed : CheckStep::kFailed, "settings",
                     complete ? "all that are needed are given" : "missing: " + Join(target.missing, "; ")});
    // What is made at the store by way of trial belongs to who will upload there.
    if (Status acts = target.database.empty() ? Ok() : ActAsOwner(target.database); !acts.ok())
      steps.push_back({CheckStep::kFailed, "owner", acts.message()});
    if (!target.folder.empty() && !FileExists(target.folder))
      steps.push_back({CheckStep::kFailed, "folder", "there is no folder " + target.folder});
    if (!target.database.empty() && !FileExists(target.database))
      steps.push_back({CheckStep::kSkipped, "database", "there is no " + target.database + " (yet)"});
    if (!target.database.empty() && FileExists(target.database))
      for (CheckStep& step : CheckDatabase(target.database)) steps.push_back(std::move(step));
    if (complete) {
      auto store = Hub::Get().OpenStore(target.url, target.options);
      if (!store.ok()) {
        steps.push_back({CheckStep::kFailed, "store", store.status().message()});
      } else {
        for (CheckStep& step : CheckStore(store->get(), SystemClock())) steps.push_back(std::move(step));
      }
    }
    ActAsOneself();
    if (!output.json()) output.Line(target.database.empty() ? target.name : target.database + "  ->  " + target.name);
    ordered_json list = ordered_json::array();
    for (const CheckStep& step : steps) {
      const char* outcome = step.outcome == CheckStep::kPassed   ? "passed"
                            : step.outcome == CheckStep::kFailed ? "failed"
                                                                 : "skipped";
      failed = failed || step.outcome == CheckStep::kFailed;
      list.push_back({{"step", step.name}, {"outcome", outcome}, {"detail", step.detail}});
      if (output.json()) continue;
      const Ink ink = step.outcome == CheckStep::kPassed   ? Ink::kGood
                      : step.outcome == CheckStep::kFailed ? Ink::kBad
                                                           : Ink::kFaint;
      std::string padded = std::string(outcome) + "  " + step.name;
      padded.resize(std::max<size_t>(padded.size() + 2, 26), ' ');
      output.Line("  " + output.Painted(padded, ink) + step.detail);
    }
    checks.push_back({{"replica", target.url}, {"database", target.database}, {"steps", list}});
    interrupted = Interrupted();
    if (interrupted) break;
  }
  if (output.json()) output.Json({{"ok", !failed}, {"checks", checks}});
  return interrupted ? kExitInterrupted : failed ? kExitNo : kExitOk;
}

}  // namespace replica

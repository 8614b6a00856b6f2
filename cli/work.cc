// Commands that have the uploader do something and wait for it: verify, snapshot, sync.
#include <algorithm>
#include <functional>

#include "base/call_off.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/report_tree.h"
#include "cli/session.h"
#include "ext/hub.h"
#include "ext/wait.h"
#include "sql/report.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kLeastSync = 500000;  // µs

// One database's part of a command: its report, which says "ok".
using Work = std::function<Result<ordered_json>(const std::string& path)>;

// Runs `work` on each database, and goes on after one that fails. `line` is what a person reads of a report.
int ForEach(const Common& common, const SelectArguments& arguments, const Work& work,
            const std::function<std::string(const ordered_json& report)>& line) {
  const Output output(common.output);
  CatchSignals();
  const CallOff call_off(Interrupted);
  auto session = Session::Create(common.config, false);
  auto databases = session.ok() ? (*session)->Databases(arguments.databases) : session.status();
  if (!databases.ok()) {
    output.Error(databases.status());
    return ExitCodeOf(databases.status());
  }
  ordered_json reports = ordered_json::array();
  int exit_code = kExitOk;
  // Of several the gravest: who looks for "no" finds it whatever else went wrong.
  auto grave = [&](int code) {
    const auto weight = [](int c) {
      return c == kExitInterrupted ? 5
             : c == kExitNo        ? 4
             : c == kExitFailed    ? 3
             : c == kExitTimeout   ? 2
             : c == kExitOk        ? 0
                                   : 1;
    };
    if (weight(code) > weight(exit_code)) exit_code = code;
  };
  for (const std::string& path : *databases) {
    auto open = EnsureUploader(path);
    auto report = open.ok() ? work(path) : open.status();
    if (!report.ok()) {
      grave(ExitCodeOf(report.status()));
      if (output.json()) {
        reports.push_back({{"database", path}, {"ok", false}, {"error", report.status().message()}});
      } else {
        output.Error(report.status().message().find(path) == std::string::npos ? report.status().In(path)
                                                                               : report.status());
      }
      if (exit_code == kExitInterrupted) break;
      continue;
    }
    const bool ok = (*report)["ok"].get<bool>();
    if (!ok) grave(kExitNo);
    if (!output.json()) output.Line(output.Painted(line(*report), ok ? Ink::kGood : Ink::kBad));
    reports.push_back(std::move(*report));
  }
  if (output.json()) output.Json({{"databases", reports}});
  return exit_code;
}

}  // namespace

int RunVerify(const Common& common, const VerifyArguments& arguments) {
  const Output output(common.output);
  if (arguments.depth != "quick" && arguments.depth != "full" && arguments.depth != "objects") {
    const Status wrong(Code::kInvalidArgument, "--depth " + arguments.depth + ": give quick, full or objects");
    output.Error(wrong);
    return kExitInput;
  }
  auto work = [&](const std::string& path) -> Result<ordered_json> {
    Progress progress(output, common.output, "verifying " + path);
    auto tell = [&](uint64_t done, uint64_t planned) { return progress.Show(done, planned); };
    REPLICA_ASSIGN(const Json report, VerifyReport(path, arguments.depth, tell));
    return ordered_json(report);
  };
  return ForEach(common, arguments, work, [](const ordered_json& r) {
    std::string text = r["database"].get<std::string>() + ": ";
    std::string more;
    for (const auto& warning : r.value("warnings", ordered_json::array()))
      more += "; warning: " + warning.get<std::string>();
    if (!r["ok"].get<bool>()) {
      text += "NOT as it should be in its replica " + r["replica"].get<std::string>();
      for (const auto& error : r["errors"]) text += "; " + error.get<std::string>();
      return text + more;
    }
    const std::string depth = r["depth"].get<std::string>();
    if (depth == "objects")
      return text + std::to_string(r["objects"].get<uint64_t>()) + " objects, " +
             HumanBytes(r["bytes"].get<uint64_t>()) + ", all whole" + more;
    text += "replica and database are equal at TXID " + std::to_string(r["txid"].get<uint64_t>());
    if (depth == "full") text += "; restored and compared page by page, integrity_check ok";
    return text + more;
  });
}

int RunSnapshot(const Common& common, const SelectArguments& arguments) {
  const Output output(common.output);
  auto work = [&](const std::string& path) -> Result<ordered_json> {
    Progress progress(output, common.output, "a snapshot of " + path);
    auto tell = [&](uint64_t done, uint64_t planned) { return progress.Show(done, planned); };
    REPLICA_ASSIGN(const uint64_t txid, MakeSnapshot(path, tell));
    return ordered_json{{"database", path}, {"ok", true}, {"txid", txid}};
  };
  return ForEach(common, arguments, work, [](const ordered_json& r) {
    return r["database"].get<std::string>() + ": snapshot stored; acknowledged up to TXID " +
           std::to_string(r["txid"].get<uint64_t>());
  });
}

int RunSync(const Common& common, const WaitArguments& arguments) {
  // The uploader must be asked even when there is nothing to wait for.
  const auto micros = std::max(static_cast<int64_t>(arguments.timeout * 1e6), kLeastSync);
  const Output output(common.output);
  auto work = [&](const std::string& path) -> Result<ordered_json> {
    auto database = Hub::Get().FindDatabase(path);
    if (database == nullptr) return NotReplicated(path);
    Progress progress(output, common.output, "waiting for the store to have all of " + path);
    REPLICA_TRY(WaitSynced(database->control(), micros, [&] { return progress.Show(0, 0); }).In(path));
    return ordered_json{{"database", path}, {"ok", true}, {"txid", database->control()->acknowledged_txid.load()}};
  };
  return ForEach(common, arguments, work, [](const ordered_json& r) {
    return r["database"].get<std::string>() + ": everything committed is stored, up to TXID " +
           std::to_string(r["txid"].get<uint64_t>());
  });
}

}  // namespace replica

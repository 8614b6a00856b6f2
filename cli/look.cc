// Commands that look and change nothing: databases, status, history, events.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "base/call_off.h"
#include "base/clock.h"
#include "base/fs.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/report_tree.h"
#include "cli/session.h"
#include "sql/report.h"
#include "uploader/event_log.h"
#include "uploader/history.h"
#include "vfs/database.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

Ink InkOfState(const std::string& state, bool problem) {
  if (state == "error" || state == "fenced") return Ink::kBad;
  if (problem || state == "behind" || state == "resync") return Ink::kWarn;
  return state == "streaming" ? Ink::kGood : Ink::kFaint;
}

std::string TextOf(const ordered_json& status, const char* key, const char* missing) {
  const auto found = status.find(key);
  return found != status.end() && found->is_string() ? found->get<std::string>() : missing;
}

struct Looked {
  std::vector<ordered_json> statuses;  // each with "problem"
  bool healthy = true;
};

Looked Look(const std::vector<std::string>& databases, double max_lag) {
  Looked out;
  for (const std::string& path : databases) {
    ordered_json status = StatusReport(path);
    const std::string problem = Problem(path, status, max_lag);
    status["problem"] = problem.empty() ? ordered_json() : ordered_json(problem);
    out.healthy = out.healthy && problem.empty();
    out.statuses.push_back(std::move(status));
  }
  return out;
}

void PrintStatus(const Output& output, const Looked& looked) {
  std::vector<std::vector<Output::Cell>> rows;
  for (const ordered_json& s : looked.statuses) {
    const std::string state = TextOf(s, "state", "off");
    const bool problem = !s["problem"].is_null();
    std::string txid = "-";
    std::string lag = "-";
    std::string leader = "-";
    if (s.contains("txid")) {
      txid = std::to_string(s["txid"]["acknowledged"].get<uint64_t>()) + "/" +
             (s["txid"]["committed"].is_number() ? std::to_string(s["txid"]["committed"].get<uint64_t>()) : "?");
      lag = s["lag"]["seconds"].is_number() ? HumanSeconds(s["lag"]["seconds"].get<double>()) : "–";
      if (s["leader_pid"].is_number()) leader = std::to_string(s["leader_pid"].get<int>());
      if (s["uploader"].is_string()) leader += " (" + s["uploader"].get<std::string>() + ")";
    }
    rows.push_back({{TextOf(s, "database", "")},
                    {state, InkOfState(state, problem)},
                    {txid},
                    {lag},
                    {HumanTime(TextOf(s, "last_acknowledged", "-"))},
                    {leader},
                    {TextOf(s, "replica", "-")}});
  }
  output.Table({"DATABASE", "STATE", "STORED/COMMITTED", "LAG", "LAST STORED", "UPLOADER", "REPLICA"}, rows);
  for (const ordered_json& s : looked.statuses)
    if (!s["problem"].is_null())
      output.Line(output.Painted(TextOf(s, "database", "") + ": " + s["problem"].get<std::string>(), Ink::kBad));
}

}  // namespace

int RunDatabases(const Common& common, const SelectArguments& arguments) {
  const Output output(common.output);
  auto session = Session::Create(common.config, false);
  auto databases = session.ok() ? (*session)->Databases(arguments.databases) : session.status();
  if (!databases.ok()) {
    output.Error(databases.status());
    return ExitCodeOf(databases.status());
  }
  ordered_json list = ordered_json::array();
  std::vector<std::vector<Output::Cell>> rows;
  for (const std::string& path : *databases) {
    const DatabaseRule* rule = (*session)->config().FindRule(path);
    const ordered_json status = StatusReport(path);
    const std::string url = rule != nullptr ? rule->UrlOf(path) : TextOf(status, "replica", "");
    const bool exists = FileExists(path);
    auto size = FileSize(path);
    list.push_back({{"database", path},
                    {"exists", exists},
                    {"bytes", size.ok() ? ordered_json(*size) : ordered_json()},
                    {"replica", url},
                    {"state", TextOf(status, "state", "off")},
                    {"configured", rule == nullptr ? ordered_json() : ordered_json(rule->place)},
                    {"missing", rule == nullptr ? std::vector<std::string>() : rule->missing}});
    const std::string state = !exists                                     ? "no such file"
                              : rule != nullptr && !rule->missing.empty() ? "settings missing"
                                                                          : TextOf(status, "state", "off");
    rows.push_back({{path},
                    {size.ok() ? HumanBytes(*size) : "-"},
                    {state, InkOfState(state, !exists)},
                    {url.empty() ? "-" : url},
                    {rule == nullptr ? "-" : rule->place}});
  }
  if (output.json()) {
    output.Json({{"databases", list}});
  } else {
    output.Table({"DATABASE", "SIZE", "STATE", "REPLICA", "CONFIGURED BY"}, rows);
  }
  return kExitOk;
}

int RunStatus(const Common& common, const StatusArguments& arguments) {
  const Output output(common.output);
  auto session = Session::Create(common.config, false);
  auto databases = session.ok() ? (*session)->Databases(arguments.databases) : session.status();
  if (!databases.ok()) {
    output.Error(databases.status());
    return ExitCodeOf(databases.status());
  }
  if (arguments.watch) CatchSignals();
  const bool screen = arguments.watch && !output.json() && ::isatty(STDOUT_FILENO) != 0;
  for (;;) {
    const Looked looked = Look(*databases, arguments.max_lag);
    if (screen) std::cout << "\x1b[H\x1b[2J";
    if (!output.json()) {
      PrintStatus(output, looked);
    } else if (arguments.watch) {
      output.Line(ordered_json({{"databases", looked.statuses}}).dump());  // one document a line
    } else {
      output.Json({{"databases", looked.statuses}});
    }
    if (!arguments.watch) return looked.healthy ? kExitOk : kExitNo;
    const auto next = std::chrono::steady_clock::now() + std::chrono::duration<double>(arguments.interval);
    while (std::chrono::steady_clock::now() < next && !Interrupted())
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (Interrupted()) return kExitInterrupted;
    if (!std::cout.good()) return kExitOk;
  }
}

int RunHistory(const Common& common, const HistoryArguments& arguments) {
  const Output output(common.output);
  CatchSignals();
  const CallOff call_off(Interrupted);
  auto session = Session::Create(common.config, false);
  auto store = session.ok() ? (*session)->StoreOf(arguments.database) : session.status();
  auto history = store.ok() ? HistoryReader(store->get()).Read(arguments.most) : store.status();
  if (!history.ok()) {
    output.Error(history.status());
    return ExitCodeOf(history.status());
  }
  if (history->generations == 0) {
    const Status none(Code::kNotFound, (*store)->url() + ": there is no replica here: check the URL");
    output.Error(none);
    return ExitCodeOf(none);
  }
  ordered_json segments = ordered_json::array();
  std::vector<std::vector<Output::Cell>> rows;
  for (const HistoryEntry& e : history->entries) {
    segments.push_back(HistoryReport(**store, e));
    const std::string txids = e.min_txid == e.max_txid || e.snapshot
                                  ? std::to_string(e.max_txid)
                                  : std::to_string(e.min_txid) + "-" + std::to_string(e.max_txid);
    rows.push_back({{HexEncode(e.generation)},
                    {e.snapshot ? "snapshot" : "log", e.snapshot ? Ink::kGood : Ink::kPlain},
                    {txids},
                    {e.folded ? "last" : "all"},
                    {HumanTime(FormatTime(e.first_time))},
                    {HumanTime(FormatTime(e.last_time))},
                    {HumanBytes(e.bytes)}});
  }
  if (output.json()) {
    output.Json({{"replica", (*store)->url()},
                 {"generations", history->generations},
                 {"objects", history->objects},
                 {"bytes", history->bytes},
                 {"sampled", history->sampled},
                 {"holes", HolesReport(*history)},
                 {"clock_steps", ClockStepsReport(*history)},
                 {"segments", segments}});
  } else {
    output.Table({"GENERATION", "KIND", "TXID", "RESTORABLE", "FIRST COMMIT", "LAST COMMIT", "SIZE"}, rows);
    output.Remark(std::to_string(history->objects) + " objects, " + HumanBytes(history->bytes) + " in " +
                  (*store)->url() + (history->sampled ? "; not all segments are shown" : ""));
    for (const HistoryHole& hole : history->holes)
      output.Line(output.Painted("warning: log segments " + std::to_string(hole.first) + " to " +
                                     std::to_string(hole.last) + " of generation " + HexEncode(hole.generation) +
                                     " are missing: no state in them or behind them is restorable, as far as the next "
                                     "snapshot; `replica snapshot` makes the present one so",
                                 Ink::kWarn));
    for (const ClockStep& step : history->clock_steps)
      output.Line(output.Painted("warning: behind TXID " + std::to_string(step.txid) + " of generation " +
                                     HexEncode(step.generation) + " the clock was set back, from " +
                                     FormatTime(step.from) + " to " + FormatTime(step.to) +
                                     ": a restore to a time between the two ends before the step; restore by TXID to "
                                     "get beyond it",
                                 Ink::kWarn));
  }
  return kExitOk;
}

int RunEvents(const Common& common, const EventsArguments& arguments) {
  const Output output(common.output);
  auto session = Session::Create(common.config, false);
  auto databases = session.ok() ? (*session)->Databases(arguments.databases) : session.status();
  if (!databases.ok()) {
    output.Error(databases.status());
    return ExitCodeOf(databases.status());
  }
  ordered_json list = ordered_json::array();
  int exit_code = kExitOk;
  for (const std::string& path : *databases) {
    if (Status may = MayLookAt(path); !may.ok()) {
      output.Error(may);
      exit_code = kExitFailed;
      continue;
    }
    auto events = EventLog::Read(Database::FolderOf(path));
    const size_t first = arguments.most != 0 && events.size() > arguments.most ? events.size() - arguments.most : 0;
    std::vector<std::vector<Output::Cell>> rows;
    for (size_t i = first; i < events.size(); i++) {
      const Event& e = events[i];
      list.push_back({{"database", path}, {"time", e.time}, {"kind", e.kind}, {"message", e.message}});
      const Ink ink = e.kind == "error" || e.kind == "fenced" ? Ink::kBad : Ink::kPlain;
      rows.push_back({{HumanTime(e.time)}, {e.kind, ink}, {e.message}});
    }
    if (output.json()) continue;
    if (databases->size() > 1) output.Line(path);
    if (rows.empty()) {
      output.Remark("no events: " + path + " has not been replicated");
    } else {
      output.Table({"TIME", "EVENT", "MESSAGE"}, rows);
    }
  }
  if (output.json()) output.Json({{"events", list}});
  return exit_code;
}

}  // namespace replica

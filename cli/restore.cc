// The restore command.
#include "uploader/restore.h"

#include "base/call_off.h"
#include "base/clock.h"
#include "base/fs.h"
#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/report_tree.h"
#include "cli/session.h"
#include "sql/report.h"
#include "uploader/replica.h"

namespace replica {
namespace {

using nlohmann::ordered_json;

void Warn(const Output& output, const std::string& warning) {
  if (!warning.empty()) output.Remark("warning: " + warning + "; an older snapshot and the log take its place");
}

Result<int> Restore(const Output& output, const Common& common, const RestoreArguments& arguments) {
  REPLICA_ASSIGN(const RestoreTarget target, ParseTarget(arguments.to));
  const bool url = IsUrl(arguments.database);
  if (url && arguments.output.empty())
    return Status(Code::kInvalidArgument, "a replica's URL does not say where to restore to: give --output FILE");
  const std::string path = FullPath(arguments.output.empty() ? arguments.database : arguments.output);
  if (arguments.if_missing && FileExists(path)) {
    if (output.json()) output.Json({{"path", path}, {"restored", false}, {"reason", "the database exists"}});
    output.Remark(path + " exists: nothing to do");
    return static_cast<int>(kExitOk);
  }
  REPLICA_ASSIGN(auto session, Session::Create(common.config, false));
  REPLICA_ASSIGN(auto store, session->StoreOf(arguments.database));
  if (arguments.if_replica) {
    REPLICA_ASSIGN(auto generations, ListGenerations(store.get()));
    if (generations.empty()) {
      if (output.json()) output.Json({{"path", path}, {"restored", false}, {"reason", "there is no replica"}});
      output.Remark(store->url() + " holds no replica: nothing to do");
      return static_cast<int>(kExitOk);
    }
  }
  if (arguments.dry_run) {
    REPLICA_ASSIGN(const RestorePlan plan, PlanRestore(store.get(), target));
    Warn(output, plan.warning);
    if (output.json()) {
      output.Json({{"path", path},
                   {"replica", store->url()},
                   {"generation", HexEncode(plan.generation)},
                   {"txid", plan.txid},
                   {"time", FormatTime(plan.time)},
                   {"snapshot_txid", plan.snapshot_txid},
                   {"database_bytes", uint64_t{plan.pages} * plan.page_size},
                   {"objects", plan.objects},
                   {"bytes", plan.bytes},
                   {"path_is_free", !FileExists(path)}});
    } else {
      output.Line("would restore " + store->url() + " to " + path);
      output.Line("  generation  " + HexEncode(plan.generation));
      output.Line("  state       TXID " + std::to_string(plan.txid) + " of " + HumanTime(FormatTime(plan.time)));
      output.Line("  database    " + HumanBytes(uint64_t{plan.pages} * plan.page_size));
      output.Line("  to read     " + std::to_string(plan.objects) + " objects, " + HumanBytes(plan.bytes) +
                  ", beginning with the snapshot of TXID " + std::to_string(plan.snapshot_txid));
      if (FileExists(path)) output.Line("  " + output.Painted(path + " exists: the restore would refuse", Ink::kWarn));
    }
    return static_cast<int>(kExitOk);
  }
  REPLICA_TRY(ActAsOwner(ParentFolder(path)));
  Progress progress(output, common.output, "restoring");
  REPLICA_ASSIGN(const RestoredDatabase restored,
                 RestoreDatabase(store.get(), target, path,
                                 [&](uint64_t done, uint64_t planned) { return progress.Show(done, planned); }));
  Warn(output, restored.warning);
  if (output.json()) {
    output.Json(RestoreReport(path, store->url(), restored));
  } else {
    output.Line(output.Painted("restored " + path, Ink::kGood) + ": TXID " + std::to_string(restored.txid) + " of " +
                HumanTime(FormatTime(restored.time)) + ", " + std::to_string(restored.table.pages()) +
                " pages, checksum " + Hex16(restored.checksum) + " proved");
  }
  return static_cast<int>(kExitOk);
}

}  // namespace

int RunRestore(const Common& common, const RestoreArguments& arguments) {
  const Output output(common.output);
  CatchSignals();
  const CallOff call_off(Interrupted);
  auto done = Restore(output, common, arguments);
  if (done.ok()) return *done;
  output.Error(done.status());
  return ExitCodeOf(done.status());
}

}  // namespace replica

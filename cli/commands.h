// The commands of `replica`, each a function that prints and returns an ExitCode. docs/cli.md and the manual tell what
// they are for; cli/app.cc which arguments they take.
#ifndef LIBREPLICA_CLI_COMMANDS_H_
#define LIBREPLICA_CLI_COMMANDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cli/output.h"

namespace replica {

// Options of every command.
struct Common {
  OutputOptions output;
  std::string config;  // configuration file; empty: as the environment says
};

struct SelectArguments {
  std::vector<std::string> databases;  // empty: all configured
};

struct StatusArguments : SelectArguments {
  bool watch = false;
  double interval = 1;  // seconds, with watch
  double max_lag = 60;  // seconds
};

struct HistoryArguments {
  std::string database;  // or a replica's URL
  uint64_t most = 0;     // log segments of a generation to show; 0: all
};

struct EventsArguments : SelectArguments {
  uint64_t most = 50;  // 0: all
};

struct RestoreArguments {
  std::string database;  // or a replica's URL
  std::string output;
  std::string to = "latest";
  bool dry_run = false;
  bool if_missing = false;  // --if-db-not-exists
  bool if_replica = false;  // --if-replica-exists
};

struct VerifyArguments : SelectArguments {
  std::string depth = "quick";
};

struct WaitArguments : SelectArguments {
  double timeout = 60;  // seconds
};

struct ConfigArguments {
  bool all = false;  // defaults too
};

struct CheckArguments {
  std::vector<std::string> replicas;  // databases or URLs; empty: all configured
};

struct ReplicateArguments {
  std::string database;  // with `url`: this one instead of the configured
  std::string url;
  std::string exec;
  bool restore = false;  // as if every database had restore: auto
  bool supervised = false;
};

struct DashboardArguments : SelectArguments {
  std::string listen;  // empty: dashboard.listen
  bool insecure = false;
  bool hash_password = false;
};

int RunDatabases(const Common& common, const SelectArguments& arguments);
int RunStatus(const Common& common, const StatusArguments& arguments);
int RunHistory(const Common& common, const HistoryArguments& arguments);
int RunEvents(const Common& common, const EventsArguments& arguments);
int RunRestore(const Common& common, const RestoreArguments& arguments);
int RunVerify(const Common& common, const VerifyArguments& arguments);
int RunSnapshot(const Common& common, const SelectArguments& arguments);
int RunSync(const Common& common, const WaitArguments& arguments);
int RunConfig(const Common& common, const ConfigArguments& arguments);
int RunCheck(const Common& common, const CheckArguments& arguments);
int RunReplicate(const Common& common, const ReplicateArguments& arguments);
int RunDashboard(const Common& common, const DashboardArguments& arguments);

}  // namespace replica

#endif  // LIBREPLICA_CLI_COMMANDS_H_

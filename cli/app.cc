#include "cli/app.h"

#include <iostream>

#include "cli/exit_code.h"

namespace replica {
namespace {

// Arguments of a command live as long as the app: they are kept by its callback.
template <typename Arguments>
std::shared_ptr<Arguments> OnRun(CLI::App* command, Invocation* invocation,
                                 int (*run)(const Common&, const Arguments&)) {
  auto arguments = std::make_shared<Arguments>();
  command->callback([=] { invocation->run = [=] { return run(invocation->common, *arguments); }; });
  return arguments;
}

void TakeDatabases(CLI::App* command, SelectArguments* arguments) {
  command->add_option("database", arguments->databases, "Databases; without any, all that the configuration lists");
}

void AddLooking(CLI::App* app, Invocation* invocation) {
  auto* databases = app->add_subcommand("databases", "List the databases and their replicas");
  TakeDatabases(databases, OnRun(databases, invocation, RunDatabases).get());

  auto* status =
      app->add_subcommand("status", "Show state, lag and uploader of databases; exit code 1 if one needs attention");
  auto status_arguments = OnRun(status, invocation, RunStatus);
  TakeDatabases(status, status_arguments.get());
  status->add_flag("-w,--watch", status_arguments->watch, "Go on showing it until interrupted");
  status->add_option("--interval", status_arguments->interval, "Seconds between two looks, with --watch")
      ->check(CLI::Range(0.05, 86400.0))
      ->capture_default_str();
  status->add_option("--max-lag", status_arguments->max_lag, "Seconds of lag that count as a problem; 0: none do")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();

  auto* history = app->add_subcommand("history", "List what a replica holds: its segments, TXIDs and times");
  auto history_arguments = OnRun(history, invocation, RunHistory);
  history->add_option("database", history_arguments->database, "A database, or a replica's URL")->required();
  history->add_option("--most", history_arguments->most, "Log segments of a generation to show, evenly picked; 0: all")
      ->capture_default_str();

  auto* events = app->add_subcommand("events", "Show what happened to databases' replicas");
  auto events_arguments = OnRun(events, invocation, RunEvents);
  TakeDatabases(events, events_arguments.get());
  events->add_option("-n,--most", events_arguments->most, "Events of a database to show; 0: all")
      ->capture_default_str();
}

void AddWorking(CLI::App* app, Invocation* invocation) {
  auto* restore = app->add_subcommand("restore", "Rebuild a database from its replica; never overwrites");
  auto restore_arguments = OnRun(restore, invocation, RunRestore);
  restore->add_option("database", restore_arguments->database, "A database, or a replica's URL")->required();
  restore->add_option("-o,--output", restore_arguments->output, "File to write; without it the database's own path");
  restore
      ->add_option("--to", restore_arguments->to,
                   "latest, a TXID, or a time such as 2026-01-31T12:00:00Z: the last commit at or before it")
      ->capture_default_str();
  restore->add_flag("--dry-run", restore_arguments->dry_run, "Tell what would be restored, and write nothing");
  restore->add_flag("--if-db-not-exists", restore_arguments->if_missing, "Do nothing when the file is there already");
  restore->add_flag("--if-replica-exists", restore_arguments->if_replica, "Do nothing when there is no replica");

  auto* verify =
      app->add_subcommand("verify", "Prove that a replica is equal to its database; exit code 1 if it is not");
  auto verify_arguments = OnRun(verify, invocation, RunVerify);
  TakeDatabases(verify, verify_arguments.get());
  verify
      ->add_option("--depth", verify_arguments->depth,
                   "quick: the replica ends where the database is; full: restore, compare page by page, "
                   "integrity_check; objects: read and check every object")
      ->capture_default_str();

  auto* snapshot = app->add_subcommand("snapshot", "Store a snapshot now");
  TakeDatabases(snapshot, OnRun(snapshot, invocation, RunSnapshot).get());

  auto* sync = app->add_subcommand("sync", "Wait until everything committed is stored");
  auto sync_arguments = OnRun(sync, invocation, RunSync);
  TakeDatabases(sync, sync_arguments.get());
  sync->add_option("--timeout", sync_arguments->timeout, "Seconds to wait at most for each database")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void AddSettings(CLI::App* app, Invocation* invocation) {
  auto* config = app->add_subcommand(
      "config", "Check the configuration and print what is in force; exit code 1 if a setting is missing");
  auto config_arguments = OnRun(config, invocation, RunConfig);
  config->add_flag("-a,--all", config_arguments->all, "List every setting there is, with its default");

  auto* check = app->add_subcommand("check", "Try credentials, bucket, permissions, clock and conditional PUT");
  auto check_arguments = OnRun(check, invocation, RunCheck);
  check->add_option("replica", check_arguments->replicas,
                    "Databases or replica URLs; without any, all that the configuration lists");
}

void AddServing(CLI::App* app, Invocation* invocation) {
  auto* replicate = app->add_subcommand("replicate", "Upload databases in this process until it is told to stop");
  auto arguments = OnRun(replicate, invocation, RunReplicate);
  auto* database =
      replicate->add_option("database", arguments->database, "This database instead of those of the configuration");
  replicate->add_option("url", arguments->url, "Its replica's URL")->needs(database);
  replicate->add_option("--exec,-e", arguments->exec, "Run this command, pass signals on to it, and end with it");
  replicate->add_flag("--restore-if-db-not-exists", arguments->restore,
                      "First restore configured databases that are missing (as restore: auto does)");
  replicate->add_flag("--supervised", arguments->supervised)->group("");  // the extension's; hidden
}

void AddDashboard(CLI::App* app, Invocation* invocation) {
  auto* dashboard = app->add_subcommand("dashboard", "Serve a web page that shows and looks after the databases");
  auto arguments = OnRun(dashboard, invocation, RunDashboard);
  TakeDatabases(dashboard, arguments.get());
  dashboard->add_option("-l,--listen", arguments->listen, "Address and port, instead of dashboard.listen");
  dashboard->add_flag("--insecure", arguments->insecure,
                      "Listen beyond this machine without TLS, or with a password made up at the start");
  dashboard->add_flag("--hash-password", arguments->hash_password,
                      "Read a password and print its hash for dashboard.password-hash");
}

void AddTools(CLI::App* app, Invocation* invocation) {
  auto* completion = app->add_subcommand("completion", "Print the completion script of a shell");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([=] {
    invocation->run = [=] {
      std::cout << CompletionScript(*app, *shell);
      return static_cast<int>(kExitOk);
    };
  });
  auto* manual = app->add_subcommand("manual", "Print the manual page (roff)")->group("");
  manual->callback([=] {
    invocation->run = [=] {
      std::cout << ManualPage(*app);
      return static_cast<int>(kExitOk);
    };
  });
}

}  // namespace

std::unique_ptr<CLI::App> BuildApp(Invocation* invocation) {
  auto app = std::make_unique<CLI::App>(
      "Keeps live, verifiable copies of SQLite databases in object storage: looks after what libreplica does.",
      "replica");
  Common& common = invocation->common;
  app->set_version_flag("--version", std::string("replica ") + LIBREPLICA_VERSION);
  app->add_option("-c,--config", common.config, "Configuration file, instead of the one that REPLICA_CONFIG names");
  app->add_flag("--json", common.output.json, "Print JSON");
  app->add_flag("-q,--quiet", common.output.quiet, "Print no progress and no remarks");
  app->add_option("--color", common.output.color, "auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  app->require_subcommand(1);
  AddLooking(app.get(), invocation);
  AddWorking(app.get(), invocation);
  AddSettings(app.get(), invocation);
  AddServing(app.get(), invocation);
  AddDashboard(app.get(), invocation);
  AddTools(app.get(), invocation);
  // The options of all commands may stand behind the command's name too.
  for (CLI::App* command : app->get_subcommands({})) command->fallthrough();
  return app;
}

}  // namespace replica

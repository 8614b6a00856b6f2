// The command line of `replica`: its tree of commands and options, from which the manual and the shell completions are
// made too.
#ifndef LIBREPLICA_CLI_APP_H_
#define LIBREPLICA_CLI_APP_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "cli/commands.h"

namespace replica {

// What the command line asks for; `run` is set once a command was parsed.
struct Invocation {
  Common common;
  std::function<int()> run;
};

// `invocation` outlives the app.
std::unique_ptr<CLI::App> BuildApp(Invocation* invocation);

// The manual page in roff.
std::string ManualPage(const CLI::App& app);
// The completion script of a shell: "bash", "zsh" or "fish"; empty for any other.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace replica

#endif  // LIBREPLICA_CLI_APP_H_

// The replica command.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/app.h"
#include "cli/exit_code.h"
#include "cli/output.h"
#include "ext/hub.h"

namespace {

// All long options of the command and its subcommands.
std::set<std::string> LongOptions(const CLI::App& app) {
  std::set<std::string> out;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) out.insert(name);
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    out.merge(LongOptions(*command));
  return out;
}

// Litestream's options have one dash; here "-exec" would be "-e xec".
std::string OneDash(const CLI::App& app, int argc, char** argv) {
  const std::set<std::string> known = LongOptions(app);
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; i++) {
    const std::string text = argv[i];
    std::string name = text.substr(0, text.find('='));
    if (name.size() < 4 || name[0] != '-') continue;
    if (name[1] == '-') {
      name.erase(0, 1);
      if (name != "-timestamp" && name != "-txid" && name != "-generation" && name != "-parallelism") continue;
    }
    if (name == "-timestamp" || name == "-txid") return name + ": give --to";
    if (name == "-generation") return name + ": give --to GENERATION/latest";
    if (name == "-parallelism") return name + ": is not needed: leave it out";
    if (known.count(name.substr(1)) == 0) continue;
    std::string what = name;
    return what.append(": options of several letters begin with two dashes: -").append(name);
  }
  return "";
}

// The command that a word that is none may have been meant for: one that differs least.
std::string NoCommand(const CLI::App& app, int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    if (word.empty() || word[0] == '-') continue;
    // Litestream's.
    if (word == "snapshots" || word == "generations" || word == "wal" || word == "ltx")
      return "there is no command \"" + word + "\": replica history DATABASE lists snapshots and log";
    if (word == "version") return "there is no command \"version\": replica --version tells it";
    std::string best;
    size_t least = 3;  // letters that may differ
    for (const CLI::App* command : app.get_subcommands([](const CLI::App* c) { return !c->get_group().empty(); })) {
      const std::string name = command->get_name();
      std::vector<size_t> row(name.size() + 1);
      std::iota(row.begin(), row.end(), 0);
      for (size_t a = 1; a <= word.size(); a++) {
        size_t corner = row[0]++;
        for (size_t b = 1; b <= name.size(); b++) {
          const size_t next = std::min({row[b] + 1, row[b - 1] + 1, corner + (word[a - 1] == name[b - 1] ? 0 : 1)});
          corner = std::exchange(row[b], next);
        }
      }
      if (row.back() < least) {
        least = row.back();
        best = name;
      }
    }
    return "there is no command \"" + word + "\"" + (best.empty() ? "" : ": did you mean " + best + "?");
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    replica::Invocation invocation;
    const auto app = replica::BuildApp(&invocation);
    try {
      if (const std::string one_dash = OneDash(*app, argc, argv); !one_dash.empty())
        throw CLI::ArgumentMismatch(one_dash);
      app->parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      std::string what = e.what();
      if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && app->get_subcommands().empty())
        if (const std::string none = NoCommand(*app, argc, argv); !none.empty()) what = none;
      // Help and version are "errors" of code 0; CLI11 has a code for every other kind, we have one.
      const bool json = std::find(argv, argv + argc, std::string_view("--json")) != argv + argc;
      if (e.get_exit_code() == 0) return app->exit(e), replica::kExitOk;
      replica::OutputOptions options;
      options.json = json;
      replica::Output(options).Error({replica::Code::kInvalidArgument, what + " (see --help)"});
      return replica::kExitInput;
    }
    const int code = invocation.run();
    replica::Hub::Get().StopAll();
    std::cout << std::flush;
    std::fflush(nullptr);
    if (!std::cout.good()) {
      std::cerr << "replica: not all could be written to the output" << std::endl;
      if (code == replica::kExitOk) ::_exit(replica::kExitFailed);
    }
    // An uploader that a store keeps waiting outlives its bound: nothing may be torn down under its thread.
    ::_exit(code);
  } catch (const std::exception& e) {
    std::cerr << "replica: unexpected: " << e.what() << std::endl;
    return replica::kExitFailed;
  }
}

// The replica command.
#include <algorithm>
#include <iostream>
#include <string_view>

#include "cli/app.h"
#include "cli/exit_code.h"
#include "cli/output.h"

int main(int argc, char** argv) {
  try {
    replica::Invocation invocation;
    const auto app = replica::BuildApp(&invocation);
    try {
      app->parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      // Help and version are "errors" of code 0; CLI11 has a code for every other kind, we have one.
      const bool json = std::find(argv, argv + argc, std::string_view("--json")) != argv + argc;
      if (json && e.get_exit_code() != 0) {
        replica::OutputOptions options;
        options.json = true;
        replica::Output(options).Error({replica::Code::kInvalidArgument, e.what()});
        return replica::kExitInput;
      }
      return app->exit(e) == 0 ? replica::kExitOk : replica::kExitInput;
    }
    return invocation.run();
  } catch (const std::exception& e) {
    std::cerr << "replica: unexpected: " << e.what() << std::endl;
    return replica::kExitFailed;
  }
}

// A configuration file: of the application, of Litestream, of anybody.
#include <sys/mman.h>
#include <sys/stat.h>

#include "config/config.h"
#include "config/parse.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  static const int file = [] {
    const int fd = ::memfd_create("replica.yml", MFD_CLOEXEC);
    Require(fd >= 0 && ::fchmod(fd, 0600) == 0, "the target can make its file");
    return fd;
  }();
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  Require(::ftruncate(file, 0) == 0 && WriteAt(file, data, size, 0, path).ok(), "the target can write its file");
  auto config = ReadConfig({{"REPLICA_CONFIG", path}, {"NAME", "value"}, {"AWS_ACCESS_KEY_ID", "id"}});
  if (!config.ok()) {
    Require(config.status().code() == Code::kInvalidArgument, "what is wrong with a file is an invalid argument");
    Require(config.status().message().find(path) != std::string::npos, "the error names the file");
    return 0;
  }
  accepted = !config->rules.empty();
  for (const DatabaseRule& rule : config->rules) {
    Require(rule.url.empty() ? !rule.missing.empty() : ParseUrl(rule.url).ok(), "a rule has a URL or misses one");
    Require(rule.path.empty() || rule.path[0] == '/', "a database's path is absolute");
    AttachOptions again;
    Require(ApplyJson(OptionsAsJson(rule.options), &again).ok(), "its options can be handed to an uploader process");
    Require(rule.folder.empty() || rule.folder[0] == '/', "a folder's path is absolute");
  }
  return 0;
}

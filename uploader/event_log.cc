#include "uploader/event_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/fs.h"

namespace replica {
namespace {
constexpr uint64_t kLimit = 256 << 10;
}

void EventLog::Add(const std::string& kind, const std::string& message) const {
  const std::string path = folder_ + "/events";
  auto size = FileSize(path);
  if (size.ok() && *size > kLimit) ::rename(path.c_str(), (path + ".1").c_str());
  const nlohmann::ordered_json event = {
      {"time", FormatTime(clock_.WallMicros())}, {"kind", kind}, {"message", message}};
  const std::string line = event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  auto fd = OpenOwnFile(path, O_WRONLY | O_CREAT | O_APPEND);
  if (fd.ok() && ::write(fd->get(), line.data(), line.size()) < 0) return;
}

std::vector<Event> EventLog::Read(const std::string& folder) {
  std::vector<Event> events;
  for (const char* name : {"/events.1", "/events"}) {
    auto fd = OpenOwnFile(folder + name, O_RDONLY);
    auto text = fd.ok() ? ReadWhole(fd->get(), 4 * kLimit, folder + name) : fd.status();
    if (!text.ok()) continue;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object()) continue;  // a line that a crash cut short
      events.push_back({json.value("time", ""), json.value("kind", ""), json.value("message", "")});
    }
  }
  return events;
}

}  // namespace replica

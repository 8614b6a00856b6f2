#include "uploader/event_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "base/fs.h"
#include "base/json.h"

namespace replica {
namespace {
constexpr uint64_t kLimit = 256 << 10;
constexpr uint64_t kTailOfLast = 16 << 10;  // bytes: more than a line has, escapes included
constexpr size_t kMaxMessage = 2000;        // bytes: a store must not be able to fill the log with one answer

// The end of a file that may be longer than what is kept, from the beginning of a line.
std::string Tail(int fd, uint64_t most, const std::string& path) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return "";
  const auto size = static_cast<uint64_t>(st.st_size);
  std::string text(static_cast<size_t>(std::min(size, most)), '\0');
  auto n = ReadAt(fd, text.data(), text.size(), size - text.size(), path);
  text.resize(n.ok() ? *n : 0);
  if (size > most) text.erase(0, std::min(text.find('\n'), text.size() - 1) + 1);
  return text;
}
}  // namespace

std::string EventLog::Shorten(const std::string& message) {
  return message.size() <= kMaxMessage ? message : message.substr(0, kMaxMessage) + "…";
}

void EventLog::Add(const std::string& kind, const std::string& message) const {
  Add({FormatTime(clock_.WallMicros()), kind, message});
}

void EventLog::Add(const Event& event) const {
  const std::string path = folder_ + "/events";
  auto size = FileSize(path);
  if (size.ok() && *size > kLimit) ::rename(path.c_str(), (path + ".1").c_str());
  const Json json = Json::Of("time", event.time, "kind", event.kind, "message", Shorten(event.message));
  const std::string line = json.Dump() + "\n";
  auto fd = OpenOwnFile(path, O_WRONLY | O_CREAT | O_APPEND);
  if (fd.ok() && ::write(fd->get(), line.data(), line.size()) < 0) return;
}

namespace {

// Adds the events of the end of a file, of `most` bytes.
void ReadFrom(const std::string& path, uint64_t most, std::vector<Event>* events) {
  auto fd = OpenOwnFile(path, O_RDONLY);
  if (!fd.ok()) return;
  std::istringstream lines(Tail(fd->get(), most, path));
  for (std::string line; std::getline(lines, line);) {
    const auto json = Json::Parse(line);
    if (!json.has_value()) continue;  // a line that a crash cut short
    Event event = {json->TextOf("time"), json->TextOf("kind"), json->TextOf("message")};
    if (!event.time.empty() && !event.kind.empty()) events->push_back(std::move(event));
  }
}

}  // namespace

std::vector<Event> EventLog::Read(const std::string& folder) {
  std::vector<Event> events;
  for (const char* name : {"/events.1", "/events"}) ReadFrom(folder + name, 4 * kLimit, &events);
  return events;
}

Event EventLog::Last(const std::string& folder) {
  std::vector<Event> events;
  ReadFrom(folder + "/events", kTailOfLast, &events);
  return events.empty() ? Event() : std::move(events.back());
}

}  // namespace replica

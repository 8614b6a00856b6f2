// What the replica command prints: tables and colours for people, JSON for programs, progress on a terminal.
#ifndef LIBREPLICA_CLI_OUTPUT_H_
#define LIBREPLICA_CLI_OUTPUT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"

namespace replica {

struct OutputOptions {
  bool json = false;
  bool quiet = false;          // no progress, no remarks
  std::string color = "auto";  // "auto": on a terminal, unless NO_COLOR is set
};

enum class Ink { kPlain, kGood, kBad, kWarn, kFaint };

class Output {
 public:
  explicit Output(const OutputOptions& options);

  bool json() const { return options_.json; }

  // One JSON document on stdout.
  void Json(const nlohmann::ordered_json& document) const;
  // A line on stdout.
  void Line(const std::string& text) const;
  // A line on stderr, not when quiet.
  void Remark(const std::string& text) const;
  // "replica: <message>" on stderr; with --json also {"error": …} on stdout.
  void Error(const Status& status) const;

  std::string Painted(const std::string& text, Ink ink) const;
  // Columns padded to their widest cell; `inks` of the cells (may be shorter).
  struct Cell {
    std::string text;
    Ink ink = Ink::kPlain;
  };
  void Table(const std::vector<std::string>& heads, const std::vector<std::vector<Cell>>& rows) const;

 private:
  const OutputOptions options_;
  bool color_ = false;
};

// A bar on stderr while something long goes on, when that is a terminal; removed at the end. Also turns SIGINT and
// SIGTERM into a calling-off of the work.
class Progress {
 public:
  Progress(const Output& output, const OutputOptions& options, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // False once the user wants it to stop. With nothing planned it shows the time that has gone by instead of a bar.
  bool Show(uint64_t done, uint64_t planned);

 private:
  const std::string what_;
  const bool visible_;
  int64_t begun_ = 0;  // steady µs
  int64_t last_ = 0;   // of the last drawing
};

// True after SIGINT or SIGTERM; CatchSignals makes them set this instead of ending the process (the second one ends
// it).
void CatchSignals();
bool Interrupted();

std::string HumanBytes(uint64_t bytes);             // "1.5 MiB"
std::string HumanSeconds(double seconds);           // "0.2 s", "3 min"
std::string HumanTime(const std::string& rfc3339);  // "2026-11-23 06:25:00 UTC"

}  // namespace replica

#endif  // LIBREPLICA_CLI_OUTPUT_H_

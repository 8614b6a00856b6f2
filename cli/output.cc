#include "cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "base/clock.h"

namespace replica {
namespace {

std::atomic<bool> interrupted{false};

constexpr int64_t kRedraw = 100000;  // µs
constexpr int kBarWidth = 30;

// Characters that a terminal shows, not bytes (UTF-8 continuation bytes show nothing of their own).
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// Bytes of the character at `i` if it is one that a terminal obeys rather than shows, else 0: controls (C1 are 0xC2 and
// 0x80 to 0x9F in UTF-8), and those that turn the direction of writing (U+200E, U+200F, U+202A to U+202E, U+2066 to
// U+2069).
size_t HiddenAt(const std::string& text, size_t i) {
  auto at = [&text](size_t n) { return n < text.size() ? static_cast<unsigned char>(text[n]) : 0U; };
  if (at(i) < 0x20 || at(i) == 0x7F) return 1;
  if (at(i) == 0xC2 && (at(i + 1) & 0xE0) == 0x80) return 2;
  if (at(i) != 0xE2) return 0;
  const bool marks = at(i + 1) == 0x80 && (at(i + 2) == 0x8E || at(i + 2) == 0x8F);
  const bool embeds = at(i + 1) == 0x80 && at(i + 2) >= 0xAA && at(i + 2) <= 0xAE;
  const bool isolates = at(i + 1) == 0x81 && at(i + 2) >= 0xA6 && at(i + 2) <= 0xA9;
  return marks || embeds || isolates ? 3 : 0;
}

// Names of files and stored objects are shown, and must not be able to drive the terminal.
std::string Safe(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const size_t hidden = HiddenAt(text, i);
    out += hidden != 0 ? '?' : text[i];
    if (hidden != 0) i += hidden - 1;
  }
  return out;
}

// The same for a line that may hold colours of Painted's.
std::string Plain(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t escape = text.find("\x1b[", at);
    out += Safe(text.substr(at, escape == std::string::npos ? escape : escape - at));
    if (escape == std::string::npos) break;
    size_t end = escape + 2;
    while (end < text.size() && ((text[end] >= '0' && text[end] <= '9') || text[end] == ';')) end++;
    // Painted's own codes, and no others: a stored name must not conceal what follows it.
    const std::string code = text.substr(escape + 2, end - escape - 2);
    const bool color = end < text.size() && text[end] == 'm' &&
                       (code == "0" || code == "2" || code == "32" || code == "33" || code == "1;31");
    out += color ? text.substr(escape, end + 1 - escape) : "?";
    at = color ? end + 1 : escape + 1;
  }
  return out;
}

void OnSignal(int /*signal*/) {
  interrupted.store(true);
}

}  // namespace

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  // The second one ends the process: whoever presses twice means it.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (int signal : {SIGINT, SIGTERM}) ::sigaction(signal, &action, nullptr);
}

bool Interrupted() {
  return interrupted.load();
}

Output::Output(const OutputOptions& options) : options_(options) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool fit = ::isatty(STDOUT_FILENO) != 0 && (no_color == nullptr || *no_color == 0) && term != nullptr &&
                   std::string(term) != "dumb";
  color_ = options.color == "always" || (options.color == "auto" && fit);
}

void Output::Json(const nlohmann::ordered_json& document) const {
  // JSON escapes the controls below 0x20 only; escaped, the others mean the same to a program and nothing to a
  // terminal.
  const std::string text = document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    const size_t hidden = text[i] == '\n' ? 0 : HiddenAt(text, i);
    if (hidden == 0) {
      out += text[i];
      continue;
    }
    const auto byte = [&](size_t n) { return static_cast<unsigned char>(text[i + n]); };
    const unsigned code = hidden == 1   ? byte(0)
                          : hidden == 2 ? byte(1)
                                        : 0x2000U | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
    char escaped[8];
    (void)std::snprintf(escaped, sizeof escaped, "\\u%04x", code);
    out += escaped;
    i += hidden - 1;
  }
  std::cout << out << std::endl;
}

void Output::Line(const std::string& text) const {
  std::cout << Plain(text) << std::endl;
}

void Output::Remark(const std::string& text) const {
  if (!options_.quiet && !options_.json) std::cerr << Safe(text) << std::endl;
}

void Output::Error(const Status& status) const {
  if (options_.json) Json({{"error", status.message()}, {"code", CodeName(status.code())}});
  std::cerr << "replica: " << Safe(status.message()) << std::endl;
}

std::string Output::Painted(const std::string& text, Ink ink) const {
  std::string safe = Safe(text);
  if (!color_ || ink == Ink::kPlain) return safe;
  const char* code = ink == Ink::kGood ? "32" : ink == Ink::kBad ? "1;31" : ink == Ink::kWarn ? "33" : "2";
  return std::string("\x1b[") + code + "m" + safe + "\x1b[0m";
}

void Output::Table(const std::vector<std::string>& heads, const std::vector<std::vector<Cell>>& rows) const {
  std::vector<size_t> widths;
  widths.reserve(heads.size());
  for (const std::string& head : heads) widths.push_back(Width(head));
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size() && i < widths.size(); i++) widths[i] = std::max(widths[i], Width(row[i].text));
  auto print = [&](const std::vector<Cell>& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); i++) {
      line += Painted(row[i].text, row[i].ink);
      if (i + 1 < row.size()) line += std::string(widths[i] - Width(row[i].text) + 2, ' ');
    }
    std::cout << line << "\n";
  };
  std::vector<Cell> head_row;
  head_row.reserve(heads.size());
  for (const std::string& head : heads) head_row.push_back({head, Ink::kFaint});
  print(head_row);
  for (const auto& row : rows) print(row);
  std::cout << std::flush;
}

Progress::Progress(const Output& output, const OutputOptions& options, std::string what)
    : what_(std::move(what)), visible_(!output.json() && !options.quiet && ::isatty(STDERR_FILENO) != 0) {
  CatchSignals();
  begun_ = SystemClock().SteadyMicros();
}

Progress::~Progress() {
  if (visible_ && last_ != 0) std::cerr << "\r\x1b[K" << std::flush;
}

bool Progress::Show(uint64_t done, uint64_t planned) {
  if (Interrupted()) return false;
  const int64_t now = SystemClock().SteadyMicros();
  if (!visible_ || (last_ != 0 && now - last_ < kRedraw)) return true;
  last_ = now;
  if (planned == 0) {
    std::cerr << "\r\x1b[K" << what_ << "  " << HumanSeconds(static_cast<double>(now - begun_) / 1e6) << std::flush;
    return true;
  }
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(planned));
  const int full = static_cast<int>(part * kBarWidth);
  std::cerr << "\r\x1b[K" << what_ << " [" << std::string(static_cast<size_t>(full), '#')
            << std::string(static_cast<size_t>(kBarWidth - full), '-') << "] " << static_cast<int>(part * 100) << "%  "
            << HumanBytes(done) << " of " << HumanBytes(planned) << std::flush;
  return true;
}

std::string HumanBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    unit++;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string HumanSeconds(double seconds) {
  char text[32];
  if (seconds < 60) {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
  } else if (seconds < 7200) {
    std::snprintf(text, sizeof text, "%.0f min", seconds / 60);
  } else {
    std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
  }
  return text;
}

std::string HumanTime(const std::string& rfc3339) {
  if (rfc3339.size() < 20) return rfc3339;
  return rfc3339.substr(0, 10) + " " + rfc3339.substr(11, 8) + " UTC";
}

}  // namespace replica

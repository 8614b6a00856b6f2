// JSON that others wrote: the event log, options, what an uploader process says.
#include "base/json.h"

#include <cmath>

#include "tests/fuzz/fuzz.h"

namespace replica::fuzz {
namespace {

// Asks for everything, and finds each member by its name.
void Visit(const Json& json) {
  const int types = (json.is_null() ? 1 : 0) + (json.is_object() ? 1 : 0) + (json.text() != nullptr ? 1 : 0) +
                    (json.flag() != nullptr ? 1 : 0) + (json.real() != nullptr ? 1 : 0) +
                    (json.integer().has_value() || json.natural().has_value() ? 1 : 0);
  Require(types <= 1, "a value has one type");
  Require(types == 1 || json.members().empty(), "an array has no members");
  if (const auto whole = json.integer(); whole.has_value() && *whole >= 0)
    Require(json.natural() == static_cast<uint64_t>(*whole), "a whole number is the same as a natural one");
  if (json.real() != nullptr) Require(std::isfinite(*json.real()), "a number is finite");
  for (const Json::Member& member : json.members()) {
    Require(json.Find(member.first) == &member.second, "each name is there once");
    Require(json.TextOf(member.first).empty() || member.second.text() != nullptr, "a text is a text's");
    Visit(member.second);
  }
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  const std::string_view text = View(data, size);
  // Bytes of any kind are a text that can be written and read.
  const std::string quoted = Json(std::string(text)).Dump();
  const auto unquoted = Json::Parse(quoted);
  Require(unquoted.has_value() && unquoted->text() != nullptr && unquoted->Dump() == quoted,
          "what is written can be read");

  const auto json = Json::Parse(text);
  if (!json.has_value()) return 0;
  accepted = true;
  Require(text.find('\0') == std::string_view::npos, "no document holds a NUL");
  Visit(*json);
  const std::string written = json->Dump();
  Require(written.find('\n') == std::string::npos, "it is written on one line");
  const auto again = Json::Parse(written);
  Require(again.has_value() && again->Dump() == written, "what is written again is the same");
  return 0;
}

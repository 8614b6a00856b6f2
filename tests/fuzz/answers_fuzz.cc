// What an uploader process says to its parent. The first byte: in pieces of how many bytes it arrives.
#include <vector>

#include "base/json.h"
#include "ext/uploader_answers.h"
#include "tests/fuzz/fuzz.h"

namespace replica::fuzz {
namespace {

std::string Line(const UploaderAnswer& answer) {
  Json json = Json::Of("failed", HexEncode(answer.failed.data(), answer.failed.size()), "error", answer.error,
                       "detached", HexEncode(answer.detached.data(), answer.detached.size()));
  if (answer.pong) json["pong"] = 1;
  return json.Dump() + "\n";
}

std::string Lines(const std::vector<UploaderAnswer>& answers) {
  std::string out;
  for (const UploaderAnswer& answer : answers) out += Line(answer);
  return out;
}

// As UploaderProcess does: bytes as they come, then all answers that are complete. False when a line was too long.
bool Read(std::string_view in, size_t piece, std::vector<UploaderAnswer>* out) {
  UploaderAnswers answers;
  while (!in.empty()) {
    const std::string_view bytes = in.substr(0, piece);
    in.remove_prefix(bytes.size());
    if (!answers.Add(bytes)) return false;
    while (auto answer = answers.Next()) out->push_back(*answer);
  }
  Require(!answers.Next().has_value(), "no answer is left");
  return true;
}

}  // namespace
}  // namespace replica::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace replica;        // NOLINT(google-build-using-namespace)
  using namespace replica::fuzz;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const std::string_view in = View(data + 1, size - 1);
  std::vector<UploaderAnswer> answers;
  if (!Read(in, size_t{1} + data[0], &answers)) return 0;
  accepted = !answers.empty();
  Require(answers.size() <= static_cast<size_t>(std::count(in.begin(), in.end(), '\n')), "an answer is a line");
  const std::string lines = Lines(answers);

  std::vector<UploaderAnswer> same;
  Require(Read(in, 4096, &same) && Lines(same) == lines, "it does not matter in which pieces they come");
  same.clear();
  Require(!Read(lines, lines.size(), &same) || Lines(same) == lines, "answers written again are the same");
  same.clear();
  Require(Read(std::string(in) + "\n{\"pong\": 1}\n", 4096, &same) && same.back().pong, "the next line is read");
  return 0;
}

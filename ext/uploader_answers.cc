#include "ext/uploader_answers.h"

#include "base/bytes.h"
#include "base/json.h"

namespace replica {

bool UploaderAnswers::Add(std::string_view bytes) {
  input_ += bytes;
  const size_t line = input_.rfind('\n');  // of what is complete, answers are taken before more is received
  return input_.size() - (line == std::string::npos ? 0 : line + 1) <= kMaxLine;
}

std::optional<UploaderAnswer> UploaderAnswers::Next() {
  for (size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
    const std::optional<Json> json = Json::Parse(std::string_view(input_).substr(0, end));
    input_.erase(0, end + 1);
    if (!json.has_value() || !json->is_object()) continue;
    UploaderAnswer answer;
    answer.pong = json->contains("pong");
    answer.failed = HexDecode(json->TextOf("failed"));
    answer.error = json->TextOf("error");
    answer.detached = HexDecode(json->TextOf("detached"));
    return answer;
  }
  return std::nullopt;
}

}  // namespace replica

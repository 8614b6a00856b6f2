// What the uploader process says (ext/uploader_process.h), which is another program's bytes: line by line, bounded, and
// nothing of an answer that is not as it should be.
#ifndef LIBREPLICA_EXT_UPLOADER_ANSWERS_H_
#define LIBREPLICA_EXT_UPLOADER_ANSWERS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace replica {

struct UploaderAnswer {
  bool pong = false;
  std::string failed;    // path of a database that it cannot take yet; empty: none
  std::string error;     // why
  std::string detached;  // path of a database that it has let go; empty: none
};

class UploaderAnswers {
 public:
  static constexpr size_t kMaxLine = 64 << 10;  // bytes

  // What was received. False when a line is too long: whoever speaks is no uploader.
  bool Add(std::string_view bytes);
  // The next answer; nothing when no line is complete.
  std::optional<UploaderAnswer> Next();
  void Clear() { input_.clear(); }

 private:
  std::string input_;
};

}  // namespace replica

#endif  // LIBREPLICA_EXT_UPLOADER_ANSWERS_H_

// Status and Result<T>: the one way an error travels inside libreplica.
//
// An error's message says what failed, on which object or file, and what to do next; it never holds a
// credential. Nothing here throws. A Status is a small value: copy and move it freely.
#ifndef LIBREPLICA_BASE_STATUS_H_
#define LIBREPLICA_BASE_STATUS_H_

#include <optional>
#include <string>
#include <utility>

namespace replica {

enum class Code {
  kOk,
  kInvalidArgument,  // the caller's input is wrong: an option, a URL, a target
  kNotFound,         // an object, file, generation or target is not there
  kExists,           // something is there that must not be overwritten
  kIo,               // the local system refused: the message has the path and errno's text
  kCorrupt,          // bytes that fail their checksum or break the format
  kPermission,       // the store refused the credentials or the action
  kUnavailable,      // the store did not answer, or asked to come back later: retrying may help
  kConflict,         // another writer, or another database's history, is in the way
  kTimeout,          // the caller's own time limit passed
  kFull,             // no space left
  kInterrupted,      // the caller called it off
  kTooLarge,         // the store takes no object of this size
  kUnsupported,      // a mode or store libreplica does not work with
  kInternal,         // a promise inside libreplica was broken: report it
};

// The code's name as status and events print it, e.g. "not-found".
const char* CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with `where` in front, for a caller that knows more about the place.
  Status In(const std::string& where) const { return ok() ? *this : Status(code_, where + ": " + message_); }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status Ok() {
  return {};
}

// True for errors that only a person can mend: worth trying again slowly, if at all.
bool NeedsPerson(const Status& status);

// A Status made from errno: kFull for ENOSPC/EDQUOT, kNotFound for ENOENT, kExists for EEXIST, kPermission for
// EACCES/EPERM/EROFS, else kIo. The message is "<action> <path>: <strerror>".
Status ErrnoStatus(int error, const std::string& action, const std::string& path);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit on purpose
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit on purpose

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() { return *value_; }
  const T& value() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

#define REPLICA_CONCAT_(a, b) a##b
#define REPLICA_CONCAT(a, b) REPLICA_CONCAT_(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): declarations take none
// REPLICA_TRY(Function()): goes on, or returns the error.
#define REPLICA_TRY(expr) REPLICA_TRY_(expr, REPLICA_CONCAT(try_status_, __COUNTER__))
#define REPLICA_TRY_(expr, name)     \
  do {                               \
    ::replica::Status name = (expr); \
    if (!name.ok()) return name;     \
  } while (0)

// REPLICA_ASSIGN(auto x, Function()): x is the value, or the function returns the error.
#define REPLICA_ASSIGN(decl, ...) REPLICA_ASSIGN_(decl, REPLICA_CONCAT(result_, __COUNTER__), __VA_ARGS__)
#define REPLICA_ASSIGN_(decl, name, ...) \
  auto name = (__VA_ARGS__);             \
  if (!name.ok()) return name.status();  \
  decl = std::move(*name)
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace replica

#endif  // LIBREPLICA_BASE_STATUS_H_

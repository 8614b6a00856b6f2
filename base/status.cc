#include "base/status.h"

#include <cerrno>
#include <system_error>

namespace replica {

const char* CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid-argument";
    case Code::kNotFound:
      return "not-found";
    case Code::kExists:
      return "exists";
    case Code::kIo:
      return "io";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kPermission:
      return "permission";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kConflict:
      return "conflict";
    case Code::kTimeout:
      return "timeout";
    case Code::kFull:
      return "full";
    case Code::kInterrupted:
      return "interrupted";
    case Code::kTooLarge:
      return "too-large";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

bool NeedsPerson(const Status& status) {
  switch (status.code()) {
    case Code::kPermission:
    case Code::kInvalidArgument:
    case Code::kUnsupported:
    case Code::kTooLarge:
    case Code::kConflict:
    case Code::kCorrupt:
      return true;
    default:
      return false;
  }
}

Status ErrnoStatus(int error, const std::string& action, const std::string& path) {
  Code code = Code::kIo;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      code = Code::kFull;
      break;
    case ENOENT:
      code = Code::kNotFound;
      break;
    case EEXIST:
      code = Code::kExists;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = Code::kPermission;
      break;
    default:
      break;
  }
  return {code, action + " " + path + ": " + std::generic_category().message(error)};
}

}  // namespace replica

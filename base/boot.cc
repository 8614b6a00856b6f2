#include "base/boot.h"

#include <fcntl.h>

#include <string_view>

#include "base/fs.h"
#include "base/hash.h"

namespace replica {

uint64_t BootHash() {
  static const uint64_t hash = [] {
    // procfs files say they are empty: read a few bytes instead.
    char text[64] = "";
    auto fd = OpenFile("/proc/sys/kernel/random/boot_id", O_RDONLY);
    size_t n = 0;
    if (fd.ok()) {
      auto got = ReadAt(fd->get(), text, sizeof text, 0, "boot_id");
      if (got.ok()) n = *got;
    }
    const uint64_t id = Hash64(std::string_view(text, n));
    return id == 0 ? 1 : id;
  }();
  return hash;
}

}  // namespace replica

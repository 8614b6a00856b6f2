// What the fuzz targets share.
//
// A target is one file with LLVMFuzzerTestOneInput. libFuzzer runs it for long (scripts/fuzz.sh), the test suite for a
// moment (standalone_main.cc). Inputs of which a checksum would stop every change come without it: the target puts the
// right one in.
#ifndef LIBREPLICA_TESTS_FUZZ_FUZZ_H_
#define LIBREPLICA_TESTS_FUZZ_FUZZ_H_

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/fs.h"
#include "base/hash.h"
#include "tests/temporary_folder.h"

namespace replica::fuzz {

// Ends the program, which is how a fuzzer learns of a finding.
inline void Require(bool kept, const char* promise) {
  if (kept) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

// A target sets it when its parser takes the input. The test suite checks that for the seeds whose names begin with
// "valid": after a change of a format they would go on passing, and test nothing.
inline bool accepted = false;

inline std::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A folder of this process's own, in memory where there is such a place.
inline const std::string& Folder() {
  static const TemporaryFolder* const folder = [] {
    if (::access("/dev/shm", W_OK) == 0) (void)::setenv("TMPDIR", "/dev/shm", 0);
    static TemporaryFolder made;
    return &made;
  }();
  return folder->path();
}

inline void WriteFile(const std::string& path, std::string_view bytes) {
  auto fd = OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC);
  Require(fd.ok() && WriteAt(fd->get(), bytes.data(), bytes.size(), 0, path).ok(), "the target can write its file");
}

// Puts the hash of the first `size` bytes behind them.
inline void StoreHash(std::string* bytes, size_t size) {
  StoreLittle<uint64_t>(bytes->data() + size, Hash64(std::string_view(*bytes).substr(0, size)));
}

// Takes a part with its length, two bytes, off the front of an input.
inline std::string_view TakePart(std::string_view* in) {
  ByteReader reader(*in);
  const size_t size = reader.Little<uint16_t>();
  const std::string_view part = reader.Bytes(std::min(size, reader.remaining()));
  *in = reader.Bytes(reader.remaining());
  return part;
}

inline std::string Part(std::string_view bytes) {
  std::string out;
  AppendLittle<uint16_t>(out, static_cast<uint16_t>(bytes.size()));
  return out.append(bytes);
}

}  // namespace replica::fuzz

#endif  // LIBREPLICA_TESTS_FUZZ_FUZZ_H_

// What capture hands to the encoder: the committed frames of one run of a WAL (or several in a row), and where they
// end.
#ifndef LIBREPLICA_UPLOADER_BATCH_H_
#define LIBREPLICA_UPLOADER_BATCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/segment.h"

namespace replica {

// One commit: frames [first, first + count) of the batch.
struct BatchCommit {
  size_t first = 0;
  size_t count = 0;
  uint32_t pages = 0;  // database size after it
  int64_t time = 0;    // wall clock, microseconds
};

// Pages of frames, kept in memory or in a journal file.
class Batch {
 public:
  struct Frame {
    uint32_t page = 0;
    int32_t file = -1;    // index into the files, or -1: in memory
    uint64_t offset = 0;  // of the page's bytes
  };

  uint32_t page_size = 0;
  std::vector<BatchCommit> commits;
  std::vector<Frame> frames;
  WalPosition end;           // after the last commit
  uint32_t end_changes = 0;  // iChange there, when known
  bool end_changes_known = false;
  bool whole = false;  // holds all that was committed when it was begun
  std::string memory;
  std::vector<std::pair<std::string, std::shared_ptr<UniqueFd>>> files;
  std::vector<std::string> journals;  // whose frames are all in here: removed once the segment is written

  bool empty() const { return commits.empty(); }
  uint64_t raw_bytes() const { return uint64_t{frames.size()} * page_size; }

  // The page of frame `i`; copied into `scratch` when it is not in memory.
  Result<const uint8_t*> Page(size_t i, std::string* scratch) const {
    const Frame& f = frames[i];
    if (f.file < 0) return reinterpret_cast<const uint8_t*>(memory.data()) + f.offset;
    const auto& [path, fd] = files[static_cast<size_t>(f.file)];
    scratch->resize(page_size);
    REPLICA_ASSIGN(size_t n, ReadAt(fd->get(), scratch->data(), page_size, f.offset, path));
    if (n != page_size) return Status(Code::kIo, path + " became shorter while it was read");
    return reinterpret_cast<const uint8_t*>(scratch->data());
  }
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_BATCH_H_

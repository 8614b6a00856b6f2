// Turns a batch of commits into a log segment, and brings the page table along to the state that it ends with. Between
// the table's Begin and Commit, so that the caller can roll it back on error. Leader's thread only.
#ifndef LIBREPLICA_UPLOADER_ENCODER_H_
#define LIBREPLICA_UPLOADER_ENCODER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "uploader/batch.h"
#include "uploader/page_table.h"
#include "uploader/segment_writer.h"
#include "uploader/source.h"

namespace replica {

struct EncodeOptions {
  int level = 3;                      // zstd
  uint64_t fold_above = 64ULL << 20;  // bytes of frames; more are folded
  bool prefix = true;                 // code pages against their previous versions
};

// A batch on its way into a log segment, in two steps: Prepare hashes it and brings the page table along (memory
// speed), Write compresses. A read view can end between them.
class BatchEncoder {
 public:
  // `batch`, `source` and `table` outlive it. `header` needs page size, ids, writer, sequence and min_txid; kind and
  // flags are set here. `now`: wall clock, µs.
  BatchEncoder(const Batch& batch, Source* source, PageTable* table, const SegmentHeader& header, int64_t now,
               const EncodeOptions& options);

  Status Prepare();
  // Prepared: calls `each` with the newest version of every page that the batch changed, ascending.
  Status Newest(const std::function<Status(uint32_t page, const uint8_t* data, uint64_t hash)>& each);
  Result<EncodedSegment> Write(const std::string& path);
  uint64_t max_txid() const { return trailer_.max_txid; }

 private:
  // One version of a page: where its bytes are and which commit made it.
  struct Version {
    uint32_t page;
    uint32_t commit;
    uint64_t frame;  // index into the batch's frames; from batch.frames.size() on: into the added pages
    uint64_t hash;
  };

  Result<const uint8_t*> Page(uint64_t frame);
  Status GatherVersions();
  Status AddNewPages(uint32_t commit, uint32_t first, uint32_t last, uint64_t* added);
  void NoteBases();
  Status HashAll();
  Status HashFolded();
  Status Hash(Version* version);

  const Batch& batch_;
  Source* const source_;
  PageTable* const table_;
  const EncodeOptions options_;
  const uint32_t size_;
  const bool folded_;
  SegmentHeader header_;
  SegmentTrailer trailer_;
  std::vector<CommitEntry> commits_;
  std::vector<Version> versions_;
  std::vector<std::pair<uint32_t, uint64_t>> bases_;  // pages and their hashes before the batch
  std::string added_;                                 // pages that commits added without writing them
  std::string scratch_;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_ENCODER_H_

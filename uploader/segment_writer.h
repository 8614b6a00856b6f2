// Encodes a segment into a local file, in one pass and bounded memory.
//
// Use: Create, Add each version in (page, TXID) order, Finish. A writer that is destroyed before Finish removes its
// file. Not thread-safe. Memory: one block raw and compressed (about 0.5 MiB; more for hot 64 KiB pages), its prefix,
// the zstd context, and 24 bytes a version for the index.
#ifndef LIBREPLICA_UPLOADER_SEGMENT_WRITER_H_
#define LIBREPLICA_UPLOADER_SEGMENT_WRITER_H_

#include <memory>
#include <string>

#include "base/fs.h"
#include "base/sha256.h"
#include "base/status.h"
#include "uploader/segment.h"

typedef struct ZSTD_CCtx_s ZSTD_CCtx;  // NOLINT: zstd's own name

namespace replica {

// A finished segment file.
struct EncodedSegment {
  std::string path;
  Segment segment;     // the index may be dropped by the owner once it is applied
  uint64_t size = 0;   // bytes of the file
  std::string sha256;  // of the whole file, lower-case hex: what S3 signs
};

class SegmentWriter {
 public:
  struct Options {
    int level = 3;
    uint64_t block = kBlockTarget;  // raw bytes a block gathers before it is closed
    bool durable = false;           // fsync file and folder in Finish
  };

  // The file is written as "<path>.tmp" and renamed to `path` by Finish.
  static Result<std::unique_ptr<SegmentWriter>> Create(const std::string& path, const SegmentHeader& header,
                                                       const Options& options);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  // `base` is the page as it was before this segment, or null when it is not known or not worth it; it is looked at
  // only for the first version of a page. `hash` is the page hash of `page`, kept with kSegmentPageHashes.
  Status Add(uint32_t page, uint64_t txid, const uint8_t* data, const uint8_t* base, uint64_t hash);

  // `trailer` gives max_txid, the checksums, the sizes, created and wal; the rest is filled in.
  Result<EncodedSegment> Finish(const SegmentTrailer& trailer, std::vector<CommitEntry> commits);

 private:
  SegmentWriter(std::string path, UniqueFd fd, const SegmentHeader& header, const Options& options);

  Status CloseBlock();
  Status Append(std::string_view bytes);  // to the file and the running SHA-256
  Status Flush();

  const std::string path_;
  const std::string temporary_;
  const Options options_;
  UniqueFd fd_;
  Segment segment_;
  uint64_t offset_ = 0;   // bytes appended
  uint64_t flushed_ = 0;  // bytes written to the file
  std::string out_;       // appended, not yet written
  std::string block_;     // raw versions of the open block
  std::string prefix_;    // bases of the open block's pages, in order
  std::string carry_;     // last version of the page that the open block continues
  std::string stored_;    // compressed block, reused
  bool ending_ = false;   // Finish was called
  bool finished_ = false;
  ZSTD_CCtx* zstd_ = nullptr;
  Sha256 sha_;  // of all that was appended
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SEGMENT_WRITER_H_

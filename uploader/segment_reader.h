// Reads a segment that nobody vouches for: every length, count and checksum is checked before it is used.
//
// Open reads header, trailer and index; DecodeBlock turns one block into pages. Not thread-safe.
#ifndef LIBREPLICA_UPLOADER_SEGMENT_READER_H_
#define LIBREPLICA_UPLOADER_SEGMENT_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/segment.h"

typedef struct ZSTD_DCtx_s ZSTD_DCtx;  // NOLINT: zstd's own name

namespace replica {

// Bytes of one object by range.
class ObjectBytes {
 public:
  virtual ~ObjectBytes() = default;
  virtual const std::string& name() const = 0;
  virtual uint64_t size() const = 0;
  // Exactly `size` bytes at `offset`, or an error that names the object.
  virtual Result<std::string> Read(uint64_t offset, uint64_t size) = 0;
};

// A local file's bytes (a spooled segment).
class FileBytes : public ObjectBytes {
 public:
  static Result<std::unique_ptr<FileBytes>> Open(const std::string& path);
  const std::string& name() const override { return path_; }
  uint64_t size() const override { return size_; }
  Result<std::string> Read(uint64_t offset, uint64_t size) override;

 private:
  FileBytes(std::string path, UniqueFd fd, uint64_t size) : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}
  const std::string path_;
  UniqueFd fd_;
  const uint64_t size_;
};

class SegmentReader {
 public:
  // Reads the page as it was before the segment: `page` into `out` (page-size bytes).
  using BaseFetch = std::function<Status(uint32_t page, uint8_t* out)>;
  using PageSink = std::function<Status(const PageVersion& version, const uint8_t* data)>;

  // `bytes` must outlive the reader. Errors name the object.
  static Result<std::unique_ptr<SegmentReader>> Open(ObjectBytes* bytes);
  ~SegmentReader();
  SegmentReader(const SegmentReader&) = delete;
  SegmentReader& operator=(const SegmentReader&) = delete;

  const Segment& segment() const { return segment_; }

  // Decodes every block in order and hands each version to `sink`. `base` is asked for the pages that the segment was
  // coded against; it may be null when the caller knows that there are none (a snapshot).
  Status ReadAll(const BaseFetch& base, const PageSink& sink);

  // Reads the whole object and compares its SHA-256 with the trailer's.
  Status CheckSha256();

 private:
  explicit SegmentReader(ObjectBytes* bytes);
  Result<std::string> ReadIndex();
  Status DecodeBlock(const SegmentBlock& block, const BaseFetch& base, std::string* raw);
  Status Damaged(const std::string& what) const;

  ObjectBytes* const bytes_;
  Segment segment_;
  ZSTD_DCtx* zstd_;
  std::string prefix_;
  std::string carry_;  // last version of the previous block
  uint32_t carry_page_ = 0;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SEGMENT_READER_H_

#include "uploader/segment_writer.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/hash.h"

namespace replica {
namespace {

constexpr size_t kWriteBuffer = 1 << 20;

// Compresses `raw` with `prefix` in front of it. The window must reach from the block's end to the prefix's start.
Status Compress(ZSTD_CCtx* zstd, int level, std::string_view prefix, std::string_view raw, std::string* out) {
  ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
  ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level);
  if (!prefix.empty()) {
    int window = std::bit_width(prefix.size() + raw.size());
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, std::max(window, 10));
    ZSTD_CCtx_refPrefix(zstd, prefix.data(), prefix.size());
  }
  out->resize(ZSTD_compressBound(raw.size()));
  size_t n = ZSTD_compress2(zstd, out->data(), out->size(), raw.data(), raw.size());
  if (ZSTD_isError(n) != 0)
    return {Code::kInternal, std::string("zstd cannot compress a block: ") + ZSTD_getErrorName(n)};
  out->resize(n);
  return Ok();
}

}  // namespace

Result<std::unique_ptr<SegmentWriter>> SegmentWriter::Create(const std::string& path, const SegmentHeader& header,
                                                             const Options& options) {
  const std::string temporary = path + ".tmp";
  REPLICA_TRY(RemoveFile(temporary));
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(temporary, O_RDWR | O_CREAT | O_EXCL));
  std::unique_ptr<SegmentWriter> writer(new SegmentWriter(path, std::move(fd), header, options));
  if (writer->zstd_ == nullptr) return Status(Code::kInternal, "cannot set up zstd (out of memory?)");
  REPLICA_TRY(writer->Append(EncodeHeader(header)));
  return writer;
}

SegmentWriter::SegmentWriter(std::string path, UniqueFd fd, const SegmentHeader& header, const Options& options)
    : path_(std::move(path)),
      temporary_(path_ + ".tmp"),
      options_(options),
      fd_(std::move(fd)),
      zstd_(ZSTD_createCCtx()) {
  segment_.header = header;
}

SegmentWriter::~SegmentWriter() {
  ZSTD_freeCCtx(zstd_);
  if (!finished_) ::unlink(temporary_.c_str());
}

Status SegmentWriter::Add(uint32_t page, uint64_t txid, const uint8_t* data, const uint8_t* base, uint64_t hash) {
  const uint32_t size = segment_.header.page_size;
  const auto* bytes = reinterpret_cast<const char*>(data);
  const bool same_page = !segment_.versions.empty() && segment_.versions.back().page == page;
  bool has_base = false;
  if (block_.size() + size > std::max<uint64_t>(options_.block, size) && !block_.empty()) {
    // A page whose versions go on in the next block has the last one written as its base there.
    if (same_page) carry_.assign(block_, block_.size() - size, size);
    REPLICA_TRY(CloseBlock());
    if (same_page) {
      prefix_ = carry_;
      has_base = true;
    }
  }
  if (!same_page && base != nullptr) {
    prefix_.append(reinterpret_cast<const char*>(base), size);
    has_base = true;
  }
  block_.append(bytes, size);
  segment_.versions.push_back({page, txid, has_base, hash});
  return Ok();
}

Status SegmentWriter::CloseBlock() {
  if (block_.empty()) return Ok();
  REPLICA_TRY(Compress(zstd_, options_.level, prefix_, block_, &stored_));
  SegmentBlock block;
  block.offset = offset_;
  block.stored = stored_.size();
  block.raw = block_.size();
  block.hash = Hash64(stored_);
  block.count = block_.size() / segment_.header.page_size;
  block.first = segment_.versions.size() - block.count;
  segment_.blocks.push_back(block);
  block_.clear();
  prefix_.clear();
  return Append(stored_);
}

Status SegmentWriter::Append(std::string_view bytes) {
  sha_.Update(bytes);
  offset_ += bytes.size();
  out_.append(bytes);
  return out_.size() >= kWriteBuffer ? Flush() : Ok();
}

Status SegmentWriter::Flush() {
  REPLICA_TRY(WriteAt(fd_.get(), out_.data(), out_.size(), flushed_, temporary_));
  flushed_ += out_.size();
  out_.clear();
  return Ok();
}

Result<EncodedSegment> SegmentWriter::Finish(const SegmentTrailer& trailer, std::vector<CommitEntry> commits) {
  if (std::exchange(ending_, true)) return Status(Code::kInternal, path_ + ": a segment is ended once");
  REPLICA_TRY(CloseBlock());
  segment_.commits = std::move(commits);
  SegmentTrailer& t = segment_.trailer;
  t = trailer;
  t.block_count = static_cast<uint32_t>(segment_.blocks.size());
  if ((segment_.versions.size() > kMaxVersions && (segment_.header.flags & kSegmentPageHashes) == 0) ||
      segment_.blocks.size() > kMaxBlocks || segment_.commits.size() > kMaxCommits)
    return Status(Code::kUnsupported, path_ + ": more pages or commits than one object may hold");
  t.version_count = segment_.versions.size();
  t.commit_count = segment_.commits.size();
  std::string meta = EncodeMeta(segment_);
  REPLICA_TRY(Compress(zstd_, options_.level, {}, meta, &stored_));
  t.meta_offset = offset_;
  t.meta_stored = stored_.size();
  t.meta_raw = meta.size();
  t.meta_hash = Hash64(stored_);
  REPLICA_TRY(Append(stored_));

  // The SHA-256 in the trailer covers all that stands before it, the trailer's own fields included.
  std::string end = EncodeTrailer(t);
  const size_t sha_offset = end.size() - 8 - 8 - t.sha256.size();
  sha_.Update(std::string_view(end).substr(0, sha_offset));
  t.sha256 = sha_.Finish();
  end = EncodeTrailer(t);
  sha_.Update(std::string_view(end).substr(sha_offset));
  const Sha256::Digest whole = sha_.Finish();
  out_.append(end);
  offset_ += end.size();
  REPLICA_TRY(Flush());
  if (options_.durable) REPLICA_TRY(SyncFile(fd_.get(), temporary_));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "rename to", path_);
  finished_ = true;
  if (options_.durable) REPLICA_TRY(SyncFolder(ParentFolder(path_)));

  EncodedSegment encoded;
  encoded.path = path_;
  encoded.size = offset_;
  encoded.sha256 = HexEncode(whole.data(), whole.size());
  encoded.segment = std::move(segment_);
  return encoded;
}

}  // namespace replica

#include "uploader/segment_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>

#include "base/hash.h"
#include "base/sha256.h"

namespace replica {

Result<std::unique_ptr<FileBytes>> FileBytes::Open(const std::string& path) {
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(errno, "stat", path);
  return std::unique_ptr<FileBytes>(new FileBytes(path, std::move(fd), static_cast<uint64_t>(st.st_size)));
}

Result<std::string> FileBytes::Read(uint64_t offset, uint64_t size) {
  if (offset > size_ || size > size_ - offset)
    return Status(Code::kCorrupt, path_ + ": shorter than its contents say (truncated?)");
  std::string out(size, '\0');
  REPLICA_ASSIGN(size_t n, ReadAt(fd_.get(), out.data(), size, offset, path_));
  if (n != size) return Status(Code::kCorrupt, path_ + ": shorter than its contents say (truncated?)");
  return out;
}

SegmentReader::SegmentReader(ObjectBytes* bytes) : bytes_(bytes), zstd_(ZSTD_createDCtx()) {}

SegmentReader::~SegmentReader() {
  ZSTD_freeDCtx(zstd_);
}

Status SegmentReader::Damaged(const std::string& what) const {
  return {Code::kCorrupt, bytes_->name() + ": damaged segment: " + what};
}

Result<std::unique_ptr<SegmentReader>> SegmentReader::Open(ObjectBytes* bytes) {
  std::unique_ptr<SegmentReader> reader(new SegmentReader(bytes));
  Segment& s = reader->segment_;
  if (reader->zstd_ == nullptr) return Status(Code::kInternal, "cannot set up zstd (out of memory?)");
  if (bytes->size() < kSegmentHeaderSize + kSegmentTrailerSize)
    return reader->Damaged("only " + std::to_string(bytes->size()) + " bytes (truncated?)");
  REPLICA_ASSIGN(std::string head, bytes->Read(0, kSegmentHeaderSize));
  auto header = DecodeHeader(head);
  if (!header.ok()) return header.status().In(bytes->name());
  s.header = *header;
  REPLICA_ASSIGN(std::string tail, bytes->Read(bytes->size() - kSegmentTrailerSize, kSegmentTrailerSize));
  auto trailer = DecodeTrailer(tail);
  if (!trailer.ok()) return trailer.status().In(bytes->name());
  s.trailer = *trailer;
  if (s.size() != bytes->size()) return reader->Damaged("its size does not fit its trailer");

  REPLICA_ASSIGN(const std::string raw, reader->ReadIndex());
  Status status = DecodeMeta(raw, &s);
  if (!status.ok()) return status.In(bytes->name());
  return reader;
}

// Unpacked as it is read: an object that claims a giant index, and has none, takes no memory for it.
Result<std::string> SegmentReader::ReadIndex() {
  constexpr uint64_t kPiece = 8 << 20;  // a request each
  constexpr uint64_t kUnpacked = 1 << 20;
  const SegmentTrailer& t = segment_.trailer;
  std::string raw;
  Hasher hasher;
  bool ended = false;
  ZSTD_DCtx_reset(zstd_, ZSTD_reset_session_only);
  for (uint64_t at = 0; at < t.meta_stored;) {
    REPLICA_ASSIGN(const std::string piece,
                   bytes_->Read(t.meta_offset + at, std::min<uint64_t>(kPiece, t.meta_stored - at)));
    at += piece.size();
    hasher.Add(piece);
    ZSTD_inBuffer in = {piece.data(), piece.size(), 0};
    while (in.pos < in.size) {
      // One frame, and nothing behind it.
      if (ended) return Damaged("the index does not end where the trailer says");
      const size_t before = raw.size();
      raw.resize(std::min<uint64_t>(before + kUnpacked, t.meta_raw + 1));
      ZSTD_outBuffer out = {raw.data() + before, raw.size() - before, 0};
      const size_t n = ZSTD_decompressStream(zstd_, &out, &in);
      raw.resize(before + out.pos);
      if (ZSTD_isError(n) != 0) return Damaged("the index does not unpack");
      if (raw.size() > t.meta_raw) return Damaged("the index is not as long as the trailer says");
      ended = n == 0;
    }
  }
  if (hasher.Digest() != t.meta_hash) return Damaged("the index fails its checksum");
  if (!ended || raw.size() != t.meta_raw) return Damaged("the index is not as long as the trailer says");
  return raw;
}

Status SegmentReader::DecodeBlock(const SegmentBlock& block, const BaseFetch& base, std::string* raw) {
  const uint32_t size = segment_.header.page_size;
  REPLICA_ASSIGN(std::string stored, bytes_->Read(block.offset, block.stored));
  if (Hash64(stored) != block.hash) return Damaged("a block fails its checksum");
  prefix_.clear();
  for (uint64_t i = block.first; i < block.first + block.count; i++) {
    const PageVersion& v = segment_.versions[i];
    if (!v.has_base) continue;
    if (i == block.first && v.page == carry_page_) {
      prefix_ += carry_;
      continue;
    }
    if (base == nullptr) return Damaged("a block that needs pages of an earlier state");
    prefix_.resize(prefix_.size() + size);
    REPLICA_TRY(base(v.page, reinterpret_cast<uint8_t*>(prefix_.data()) + prefix_.size() - size));
  }
  raw->resize(block.raw);
  ZSTD_DCtx_reset(zstd_, ZSTD_reset_session_only);
  if (!prefix_.empty()) ZSTD_DCtx_refPrefix(zstd_, prefix_.data(), prefix_.size());
  size_t n = ZSTD_decompressDCtx(zstd_, raw->data(), raw->size(), stored.data(), stored.size());
  if (ZSTD_isError(n) != 0 || n != raw->size())
    return Damaged(std::string("a block does not unpack") +
                   (ZSTD_isError(n) != 0 ? std::string(" (") + ZSTD_getErrorName(n) + ")" : ""));
  carry_page_ = segment_.versions[block.first + block.count - 1].page;
  carry_.assign(*raw, raw->size() - size, size);
  return Ok();
}

Status SegmentReader::ReadAll(const BaseFetch& base, const PageSink& sink) {
  std::string raw;
  carry_page_ = 0;
  for (const SegmentBlock& block : segment_.blocks) {
    REPLICA_TRY(DecodeBlock(block, base, &raw));
    for (uint64_t i = 0; i < block.count; i++)
      REPLICA_TRY(sink(segment_.versions[block.first + i],
                       reinterpret_cast<const uint8_t*>(raw.data()) + i * segment_.header.page_size));
  }
  return Ok();
}

Status SegmentReader::CheckSha256() {
  Sha256 sha;
  const uint64_t end = bytes_->size() - 8 - 8 - segment_.trailer.sha256.size();
  for (uint64_t at = 0; at < end;) {
    const uint64_t n = std::min<uint64_t>(end - at, 4 << 20);
    REPLICA_ASSIGN(const std::string piece, bytes_->Read(at, n));
    sha.Update(piece);
    at += n;
  }
  return sha.Finish() == segment_.trailer.sha256 ? Ok() : Damaged("its content fails the trailer's SHA-256");
}

}  // namespace replica

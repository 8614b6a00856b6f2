#include "uploader/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace replica {
namespace {

// Bytes a slice: some milliseconds, so that the WAL is relieved in between.
constexpr uint64_t kCopySlice = 8 << 20;
constexpr uint64_t kEncodeSlice = 2 << 20;

}  // namespace

Result<std::unique_ptr<SnapshotBuilder>> SnapshotBuilder::Create(Source* source, const std::string& path,
                                                                 uint32_t page_size) {
  REPLICA_ASSIGN(UniqueFd copy, OpenFile(path + ".copy", O_RDWR | O_CREAT | O_TRUNC));
  return std::unique_ptr<SnapshotBuilder>(new SnapshotBuilder(source, path, std::move(copy), page_size));
}

SnapshotBuilder::SnapshotBuilder(Source* source, std::string path, UniqueFd copy, uint32_t page_size)
    : source_(source),
      path_(std::move(path)),
      copy_path_(path_ + ".copy"),
      copy_(std::move(copy)),
      page_size_(page_size) {}

SnapshotBuilder::~SnapshotBuilder() {
  ::unlink(copy_path_.c_str());
}

Status SnapshotBuilder::WriteCopy(uint32_t page, const std::string& bytes, uint64_t hash) {
  REPLICA_TRY(WriteAt(copy_.get(), bytes.data(), page_size_, uint64_t{page - 1} * page_size_, copy_path_));
  hashes_[page - 1] = hash;
  return Ok();
}

Result<bool> SnapshotBuilder::CopySlice(const PageTable& table) {
  hashes_.resize(table.pages(), 0);
  std::string bytes(page_size_, '\0');
  const uint32_t lock_page = LockPage(page_size_);
  for (uint64_t copied = 0; next_ <= table.pages() && copied < kCopySlice; next_++) {
    const uint64_t hash = table.Get(next_);
    if (next_ == lock_page || hashes_[next_ - 1] == hash) continue;
    copied += page_size_;
    // A page that moved on meanwhile is found in a later round.
    if (source_->ReadNewest(next_, hash, reinterpret_cast<uint8_t*>(bytes.data())))
      REPLICA_TRY(WriteCopy(next_, bytes, hash));
  }
  if (next_ <= table.pages()) return false;
  next_ = 1;
  rounds_++;
  return true;
}

uint32_t SnapshotBuilder::Differing(const PageTable& table) const {
  uint32_t count = 0;
  for (uint32_t page = 1; page <= table.pages(); page++)
    if (page > hashes_.size() || hashes_[page - 1] != table.hashes()[page - 1]) count++;
  return count;
}

Status SnapshotBuilder::Freeze(const PageTable& table, const SegmentHeader& header, const SegmentTrailer& trailer,
                               int64_t time, int level) {
  time_ = time;
  Status differs(Code::kCorrupt, "the database differs from the state that its commits lead to");
  if (source_->view_pages() != table.pages()) return differs;
  hashes_.resize(table.pages(), 0);
  std::string bytes(page_size_, '\0');
  for (uint32_t page = 1; page <= table.pages(); page++) {
    const uint64_t hash = table.Get(page);
    if (page == LockPage(page_size_) || hashes_[page - 1] == hash) continue;
    REPLICA_TRY(source_->ReadView(page, reinterpret_cast<uint8_t*>(bytes.data())));
    if (PageHash(bytes.data(), page_size_, page) != hash) return differs;
    REPLICA_TRY(WriteCopy(page, bytes, hash));
  }
  header_ = header;
  header_.kind = SegmentKind::kSnapshot;
  header_.flags = kSegmentFolded | kSegmentPageHashes;
  trailer_ = trailer;
  trailer_.checksum_before = trailer_.checksum_after = table.checksum();
  trailer_.pages_before = trailer_.pages_after = table.pages();
  SegmentWriter::Options options;
  options.level = level;
  REPLICA_ASSIGN(writer_, SegmentWriter::Create(path_, header_, options));
  next_ = 1;
  return Ok();
}

Result<bool> SnapshotBuilder::EncodeSlice() {
  std::string bytes(page_size_, '\0');
  const auto pages = static_cast<uint32_t>(hashes_.size());
  for (uint64_t done = 0; next_ <= pages && done < kEncodeSlice; next_++) {
    if (next_ == LockPage(page_size_)) continue;
    REPLICA_ASSIGN(size_t n,
                   ReadAt(copy_.get(), bytes.data(), page_size_, uint64_t{next_ - 1} * page_size_, copy_path_));
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    if (n != page_size_ || PageHash(data, page_size_, next_) != hashes_[next_ - 1])
      return Status(Code::kIo, copy_path_ + " reads back differently from what was written: check the disk");
    REPLICA_TRY(writer_->Add(next_, trailer_.max_txid, data, nullptr, hashes_[next_ - 1]));
    done += page_size_;
  }
  return next_ > pages;
}

Result<EncodedSegment> SnapshotBuilder::Finish() {
  return writer_->Finish(trailer_, {{time_, trailer_.pages_after, trailer_.checksum_after}});
}

}  // namespace replica

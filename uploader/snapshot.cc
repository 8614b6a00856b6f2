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
                                                                 uint32_t page_size, const PageTable* known) {
  REPLICA_ASSIGN(UniqueFd copy, OpenFile(path + ".copy", O_RDWR | O_CREAT | O_TRUNC));
  return std::unique_ptr<SnapshotBuilder>(new SnapshotBuilder(source, path, std::move(copy), page_size, known));
}

SnapshotBuilder::SnapshotBuilder(Source* source, std::string path, UniqueFd copy, uint32_t page_size,
                                 const PageTable* known)
    : source_(source),
      path_(std::move(path)),
      copy_path_(path_ + ".copy"),
      copy_(std::move(copy)),
      page_size_(page_size),
      known_(known) {}

SnapshotBuilder::~SnapshotBuilder() {
  ::unlink(copy_path_.c_str());
}

bool SnapshotBuilder::Belongs(const PageTable& table, uint32_t page) const {
  if (page == LockPage(page_size_)) return false;
  // A page that the replica does not have yet is sent even when it is all zeros.
  return known_ == nullptr || page > known_->pages() || known_->Get(page) != table.Get(page);
}

bool SnapshotBuilder::IsDue(const PageTable& table, uint32_t page) const {
  return Belongs(table, page) && (page > hashes_.size() || hashes_[page - 1] != table.Get(page));
}

Status SnapshotBuilder::WriteCopy(uint32_t page, const uint8_t* data, uint64_t hash) {
  REPLICA_TRY(WriteAt(copy_.get(), data, page_size_, uint64_t{page - 1} * page_size_, copy_path_));
  if (page > hashes_.size()) hashes_.resize(page, 0);
  hashes_[page - 1] = hash;
  return Ok();
}

Status SnapshotBuilder::Take(BatchEncoder* batch) {
  return batch->Newest(
      [this](uint32_t page, const uint8_t* data, uint64_t hash) { return WriteCopy(page, data, hash); });
}

Result<bool> SnapshotBuilder::CopySlice(const PageTable& table) {
  std::string bytes(page_size_, '\0');
  auto* data = reinterpret_cast<uint8_t*>(bytes.data());
  for (uint64_t copied = 0; next_ <= table.pages() && copied < kCopySlice; next_++) {
    if (!IsDue(table, next_)) continue;
    const uint64_t hash = table.Get(next_);
    copied += page_size_;
    // A page that reads otherwise was changed by a commit that is not captured yet. Take brings it.
    if (source_->ReadNewest(next_, hash, data)) REPLICA_TRY(WriteCopy(next_, data, hash));
  }
  if (next_ <= table.pages()) return false;
  next_ = 1;
  rounds_++;
  return true;
}

uint32_t SnapshotBuilder::Differing(const PageTable& table) const {
  uint32_t count = 0;
  for (uint32_t page = 1; page <= table.pages(); page++)
    if (IsDue(table, page)) count++;
  return count;
}

Status SnapshotBuilder::Freeze(const PageTable& table, const SegmentHeader& header, const SegmentTrailer& trailer,
                               int64_t time, int level) {
  time_ = time;
  pages_.clear();
  Status differs(Code::kCorrupt, "the database differs from the state that its commits lead to");
  std::string bytes(page_size_, '\0');
  auto* data = reinterpret_cast<uint8_t*>(bytes.data());
  for (uint32_t page = 1; page <= table.pages(); page++) {
    if (Belongs(table, page)) pages_.push_back(page);
    if (!IsDue(table, page)) continue;
    const uint64_t hash = table.Get(page);
    REPLICA_TRY(source_->ReadView(page, data));
    if (PageHash(data, page_size_, page) != hash) return differs;
    REPLICA_TRY(WriteCopy(page, data, hash));
  }
  trailer_ = trailer;
  SegmentWriter::Options options;
  options.level = level;
  REPLICA_ASSIGN(writer_, SegmentWriter::Create(path_, header, options));
  return Ok();
}

Result<bool> SnapshotBuilder::EncodeSlice() {
  std::string bytes(page_size_, '\0');
  for (uint64_t done = 0; encoded_ < pages_.size() && done < kEncodeSlice; encoded_++) {
    const uint32_t page = pages_[encoded_];
    REPLICA_ASSIGN(size_t n,
                   ReadAt(copy_.get(), bytes.data(), page_size_, uint64_t{page - 1} * page_size_, copy_path_));
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    if (n != page_size_ || PageHash(data, page_size_, page) != hashes_[page - 1])
      return Status(Code::kIo, copy_path_ + " reads back differently from what was written: check the disk");
    REPLICA_TRY(writer_->Add(page, trailer_.max_txid, data, nullptr, hashes_[page - 1]));
    done += page_size_;
  }
  return encoded_ == pages_.size();
}

Result<EncodedSegment> SnapshotBuilder::Finish() {
  return writer_->Finish(trailer_, {{time_, trailer_.pages_after, trailer_.checksum_after}});
}

}  // namespace replica

#include "uploader/page_scan.h"

#include "base/call_off.h"

namespace replica {
namespace {

constexpr uint64_t kSlice = 4 << 20;  // bytes: a few milliseconds, so that commits are followed in between
constexpr int kMostLooks = 100;

}  // namespace

PageScan::PageScan(Source* source, const EncodeOptions& options)
    : source_(source), options_(options), table_(source->page_size()), page_(source->page_size(), '\0') {}

void PageScan::BeginAtView() {
  source_->SetPositionToView();
  table_.Resize(source_->view_pages());
}

Result<bool> PageScan::ReadSlice(uint32_t pages) {
  if (table_.pages() != pages) table_.Resize(pages);
  auto* data = reinterpret_cast<uint8_t*>(page_.data());
  for (uint64_t read = 0; next_ <= pages && read < kSlice; next_++, read += page_.size()) {
    if (next_ == LockPage(table_.page_size())) continue;
    REPLICA_TRY(source_->ReadCurrent(next_, data));
    table_.Set(next_, PageHash(data, table_.page_size(), next_));
  }
  return next_ > pages;
}

Result<bool> PageScan::Follow(const WalPosition* until, SnapshotBuilder* copy) {
  REPLICA_ASSIGN(const Batch batch, source_->Collect(options_.fold_above, until));
  if (batch.empty()) {
    if (!batch.journals.empty()) source_->Release(batch);
    return batch.whole;
  }
  SegmentHeader header;  // nothing is written
  header.page_size = table_.page_size();
  BatchEncoder encoder(batch, source_, &table_, header, 0, options_);
  REPLICA_TRY(encoder.Prepare());
  if (copy != nullptr) REPLICA_TRY(copy->Take(&encoder));
  source_->Release(batch);
  return batch.whole;
}

Status PageScan::ReadAll() {
  for (bool all = false; !all;) {
    if (CallOff::Asked()) return {Code::kInterrupted, "cancelled while the database was read"};
    REPLICA_ASSIGN(all, ReadSlice(table_.pages()));
    REPLICA_TRY(Follow(nullptr).status());
  }
  // Pages that came meanwhile are in what is followed.
  for (int i = 0; i < kMostLooks; i++) {
    REPLICA_ASSIGN(const bool end, Follow(nullptr));
    if (end) return Ok();
  }
  return {Code::kUnavailable, "the WAL is restarted again and again while it is read"};
}

Result<uint32_t> PageScan::ReadDiffering(const PageTable& table, bool in_view) {
  table_.Resize(table.pages());
  auto* data = reinterpret_cast<uint8_t*>(page_.data());
  uint32_t differing = 0;
  for (uint32_t page = 1; page <= table.pages(); page++) {
    if (page == LockPage(table.page_size()) || table_.Get(page) == table.Get(page)) continue;
    REPLICA_TRY(in_view ? source_->ReadView(page, data) : source_->ReadCurrent(page, data));
    table_.Set(page, PageHash(data, table.page_size(), page));
    if (table_.Get(page) != table.Get(page)) differing++;
  }
  return differing;
}

}  // namespace replica

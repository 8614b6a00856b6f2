#include "vfs/database_view.h"

namespace replica {

Status DatabaseView::Begin() {
  frames_.clear();
  REPLICA_TRY(connection_->BeginRead(&state_));
  pages_ = state_.pages;
  Status status;
  if (state_.mark > 0) {
    for (uint32_t i = 1; i <= state_.position.frame && status.ok(); i++) {
      FrameHeader h;
      status = connection_->ReadFrameHeader(i, &h);
      if (status.ok()) frames_[h.page] = i;
    }
  }
  if (status.ok() && pages_ == 0) {
    // The size is in the header of page 1, which no WAL frame overrides here.
    auto pages = connection_->FilePages();
    status = pages.status();
    if (pages.ok()) pages_ = *pages;
    if (status.ok() && pages_ == 0)
      status = Status(Code::kUnavailable, connection_->path() + " is empty: there is nothing to replicate yet");
  }
  if (!status.ok()) End();
  return status;
}

void DatabaseView::End() {
  connection_->EndRead();
  frames_.clear();
}

Status DatabaseView::Read(uint32_t page, uint8_t* out) const {
  auto found = frames_.find(page);
  if (found == frames_.end()) return connection_->ReadFilePage(page, out);
  if (!connection_->ReadFramePage(found->second, out))
    return {Code::kIo, connection_->path() + "-wal became shorter under a read mark"};
  return Ok();
}

}  // namespace replica

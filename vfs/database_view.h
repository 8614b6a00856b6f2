// One consistent state of a whole database, page by page, held against checkpoints while it is read.
//
// Writers are not blocked; the WAL cannot be restarted twice meanwhile. Used by one thread, between Begin and End.
#ifndef LIBREPLICA_VFS_DATABASE_VIEW_H_
#define LIBREPLICA_VFS_DATABASE_VIEW_H_

#include <cstdint>
#include <unordered_map>

#include "vfs/own_connection.h"

namespace replica {

class DatabaseView {
 public:
  // `connection` outlives it.
  explicit DatabaseView(OwnConnection* connection) : connection_(connection) {}

  Status Begin();
  void End();
  const ReadState& state() const { return state_; }
  uint32_t pages() const { return pages_; }
  Status Read(uint32_t page, uint8_t* out) const;
  // The pages that the view reads from the WAL, and their last frame in it.
  const std::unordered_map<uint32_t, uint32_t>& frames() const { return frames_; }

 private:
  OwnConnection* const connection_;
  ReadState state_;
  uint32_t pages_ = 0;
  std::unordered_map<uint32_t, uint32_t> frames_;
};

}  // namespace replica

#endif  // LIBREPLICA_VFS_DATABASE_VIEW_H_

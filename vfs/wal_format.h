// SQLite's WAL and wal-index, as https://sqlite.org/walformat.html and wal.c of 3.40 define them.
#ifndef LIBREPLICA_VFS_WAL_FORMAT_H_
#define LIBREPLICA_VFS_WAL_FORMAT_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/bytes.h"

namespace replica {

constexpr uint32_t kWalHeaderSize = 32;
constexpr uint32_t kFrameHeaderSize = 24;
constexpr uint32_t kWalIndexRegion = 32768;  // bytes a region of the -shm file

// Lock bytes of xShmLock.
constexpr int kWriteLock = 0;
constexpr int kCheckpointLock = 1;
constexpr int kRecoverLock = 2;
constexpr int kReadLock0 = 3;  // read marks 0…4 are locks 3…7

using WalSalts = std::array<uint8_t, 8>;

inline uint64_t FrameOffset(uint32_t frame, uint32_t page_size) {  // frames count from 1
  return kWalHeaderSize + uint64_t{frame - 1} * (page_size + kFrameHeaderSize);
}

// A WAL and a frame in it, in one word that processes can share: salt-1 in the high half, the frame in the low half.
// SQLite adds 1 to salt-1 at every restart, so two WALs in a row never share it.
inline uint64_t PackPosition(const WalSalts& salts, uint32_t frame) {
  return uint64_t{LoadBig32(salts.data())} << 32 | frame;
}

struct WalHeader {
  bool big_endian_checksum = false;
  uint32_t page_size = 0;
  WalSalts salts{};
  uint32_t checksum[2] = {0, 0};
};

struct FrameHeader {
  uint32_t page = 0;
  uint32_t pages_after = 0;  // not 0: the last frame of a commit; the database's size then
  WalSalts salts{};
  uint32_t checksum[2] = {0, 0};

  bool commit() const { return pages_after != 0; }
};

// A frame that the wal-index calls committed has the WAL's salts, or none at all: SQLite 3.40 leaves salts and
// checksum zero when a spilled page was rewritten, a savepoint rolled back past it, and the transaction then committed
// (iReCksum stays beyond mxFrame). Only the wal-index knows that such a frame counts; a recovery would drop it.
inline bool BelongsTo(const FrameHeader& frame, const WalSalts& salts) {
  return frame.page != 0 && (frame.salts == salts || frame.salts == WalSalts{});
}

// False when the bytes are not a WAL header (bad magic, version, page size or checksum).
bool ParseWalHeader(const uint8_t* bytes, WalHeader* header);

inline FrameHeader ParseFrameHeader(const uint8_t* bytes) {
  FrameHeader h;
  h.page = LoadBig32(bytes);
  h.pages_after = LoadBig32(bytes + 4);
  std::memcpy(h.salts.data(), bytes + 8, 8);
  h.checksum[0] = LoadBig32(bytes + 16);
  h.checksum[1] = LoadBig32(bytes + 20);
  return h;
}

// Goes on with the WAL's checksum over `size` bytes (a multiple of 8).
void WalChecksum(bool big_endian, const uint8_t* data, size_t size, uint32_t checksum[2]);
// The cumulative checksum that a frame must carry after `before`.
void FrameChecksum(bool big_endian, const uint8_t* frame, uint32_t page_size, const uint32_t before[2],
                   uint32_t after[2]);

// The wal-index header (WalIndexHdr), native byte order but for the salts.
struct WalIndexHeader {
  uint32_t version;
  uint32_t unused;
  uint32_t changes;  // iChange: one more at each commit; from 0 again after a recovery
  uint8_t is_init;
  uint8_t big_endian_checksum;
  uint16_t page_size_code;  // 1 stands for 65536
  uint32_t max_frame;       // mxFrame: the last committed frame
  uint32_t pages;
  uint32_t frame_checksum[2];
  uint8_t salts[8];
  uint32_t checksum[2];

  uint32_t page_size() const { return (page_size_code & 0xfe00U) + ((page_size_code & 1U) << 16); }
  WalSalts wal_salts() const {
    WalSalts out;
    std::memcpy(out.data(), salts, 8);
    return out;
  }
};
static_assert(sizeof(WalIndexHeader) == 48);

// WalCkptInfo, behind the two copies of the header.
struct WalCheckpointInfo {
  uint32_t backfilled;  // nBackfill
  uint32_t read_mark[5];
  uint8_t locks[8];
  uint32_t backfill_attempted;
  uint32_t unused;
};
static_assert(sizeof(WalCheckpointInfo) == 40);
constexpr size_t kCheckpointInfoOffset = 2 * sizeof(WalIndexHeader);

// Copies the header from region 0 of the wal-index without a lock, as walIndexTryHdr does: the two copies must agree
// and the checksum must fit. False when it is being changed just now, or is not initialised.
bool ReadWalIndexHeader(const volatile void* region0, WalIndexHeader* header);

}  // namespace replica

#endif  // LIBREPLICA_VFS_WAL_FORMAT_H_

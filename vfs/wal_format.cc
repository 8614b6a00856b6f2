#include "vfs/wal_format.h"

#include "uploader/page_table.h"

namespace replica {
namespace {

// Shared memory that SQLite writes without C++ atomics: read it a word at a time, so that no word tears.
void CopyShared(void* out, const volatile void* shared, size_t offset, size_t size) {
  const auto* from = reinterpret_cast<const volatile uint32_t*>(static_cast<const volatile uint8_t*>(shared) + offset);
  auto* to = static_cast<uint32_t*>(out);
  for (size_t i = 0; i < size / 4; i++) to[i] = from[i];
}

}  // namespace

bool ParseWalHeader(const uint8_t* bytes, WalHeader* header) {
  const uint32_t magic = LoadBig32(bytes);
  if ((magic & ~1U) != 0x377f0682 || LoadBig32(bytes + 4) != 3007000) return false;
  header->big_endian_checksum = (magic & 1) != 0;
  header->page_size = LoadBig32(bytes + 8);
  std::memcpy(header->salts.data(), bytes + 16, 8);
  header->checksum[0] = LoadBig32(bytes + 24);
  header->checksum[1] = LoadBig32(bytes + 28);
  uint32_t sum[2] = {0, 0};
  WalChecksum(header->big_endian_checksum, bytes, 24, sum);
  return ValidPageSize(header->page_size) && sum[0] == header->checksum[0] && sum[1] == header->checksum[1];
}

void WalChecksum(bool big_endian, const uint8_t* data, size_t size, uint32_t checksum[2]) {
  uint32_t s1 = checksum[0];
  uint32_t s2 = checksum[1];
  for (size_t i = 0; i < size; i += 8) {
    s1 += (big_endian ? LoadBig32(data + i) : LoadLittle<uint32_t>(data + i)) + s2;
    s2 += (big_endian ? LoadBig32(data + i + 4) : LoadLittle<uint32_t>(data + i + 4)) + s1;
  }
  checksum[0] = s1;
  checksum[1] = s2;
}

void FrameChecksum(bool big_endian, const uint8_t* frame, uint32_t page_size, const uint32_t before[2],
                   uint32_t after[2]) {
  uint32_t sum[2] = {before[0], before[1]};
  WalChecksum(big_endian, frame, 8, sum);
  WalChecksum(big_endian, frame + kFrameHeaderSize, page_size, sum);
  after[0] = sum[0];
  after[1] = sum[1];
}

bool ReadWalIndexHeader(const volatile void* region0, WalIndexHeader* header) {
  WalIndexHeader second;
  // SQLite writes the second copy first (walIndexWriteHdr): reading in the other order sees a torn update as a
  // difference.
  CopyShared(header, region0, 0, sizeof *header);
  std::atomic_thread_fence(std::memory_order_acquire);
  CopyShared(&second, region0, sizeof *header, sizeof second);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (std::memcmp(header, &second, sizeof second) != 0 || header->is_init == 0) return false;
  uint32_t sum[2] = {0, 0};
  WalChecksum(false, reinterpret_cast<const uint8_t*>(header), sizeof *header - 8, sum);
  return sum[0] == header->checksum[0] && sum[1] == header->checksum[1];
}

}  // namespace replica

// The hash of every page of a database at one position, and the database checksum that follows from them.
//
// Page hash: XXH3-64 of the page's bytes, seeded with the page number. Database checksum: XOR of the hashes of pages
// 1..n but the lock page (docs/format.md, "Checksums"). A page that nothing ever wrote reads as zeros, here as in
// SQLite.
#ifndef LIBREPLICA_UPLOADER_PAGE_TABLE_H_
#define LIBREPLICA_UPLOADER_PAGE_TABLE_H_

#include <cstdint>
#include <vector>

namespace replica {

constexpr uint32_t kMinPageSize = 512;
constexpr uint32_t kMaxPageSize = 65536;

// The page at byte 2^30, which SQLite uses for locks and never for content (https://sqlite.org/fileformat2.html, 1.5).
inline uint32_t LockPage(uint32_t page_size) {
  return (1U << 30) / page_size + 1;
}
inline bool ValidPageSize(uint64_t n) {
  return n >= kMinPageSize && n <= kMaxPageSize && (n & (n - 1)) == 0;
}

uint64_t PageHash(const void* page, uint32_t page_size, uint32_t page_number);
uint64_t ZeroPageHash(uint32_t page_size, uint32_t page_number);

// Not thread-safe. Memory: 8 bytes a page.
class PageTable {
 public:
  // An entry whose page in the replica is not known (after captured segments were dropped): equal to no page.
  static constexpr uint64_t kUnknown = 0;

  PageTable() = default;
  explicit PageTable(uint32_t page_size) : page_size_(page_size) {}

  uint32_t page_size() const { return page_size_; }
  uint32_t pages() const { return static_cast<uint32_t>(hashes_.size()); }
  uint64_t checksum() const { return checksum_; }

  // The hash of a page in 1..pages(); of a page beyond, that of a page of zeros.
  uint64_t Get(uint32_t page) const;
  // Sets the hash of a page in 1..pages(). The lock page is left out of the checksum.
  void Set(uint32_t page, uint64_t hash);
  // New pages read as zeros; pages cut off are forgotten.
  void Resize(uint32_t pages);

  // From Begin on, changes are remembered until Commit forgets them or Rollback takes them back.
  void Begin();
  void Commit();
  void Rollback();
  // Pages in 1..pages() changed since Begin, ascending.
  std::vector<uint32_t> Changed() const;

  const std::vector<uint64_t>& hashes() const { return hashes_; }
  // Replaces everything and computes the checksum.
  void Assign(uint32_t page_size, std::vector<uint64_t> hashes);

 private:
  struct Change {
    uint32_t page;
    uint64_t hash;  // before
    enum Kind : uint8_t { kSet, kAdded, kCut } kind;
  };

  uint32_t page_size_ = 4096;
  uint64_t checksum_ = 0;
  std::vector<uint64_t> hashes_;  // [page - 1]
  bool remember_ = false;
  std::vector<Change> changes_;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_PAGE_TABLE_H_

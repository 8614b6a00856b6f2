#include "uploader/page_table.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace replica {

uint64_t PageHash(const void* page, uint32_t page_size, uint32_t page_number) {
  return Hash64(page, page_size, page_number);
}

uint64_t ZeroPageHash(uint32_t page_size, uint32_t page_number) {
  static const uint8_t kZeros[kMaxPageSize] = {};
  return PageHash(kZeros, page_size, page_number);
}

uint64_t PageTable::Get(uint32_t page) const {
  if (page == 0 || page > hashes_.size()) return ZeroPageHash(page_size_, page);
  return hashes_[page - 1];
}

void PageTable::Set(uint32_t page, uint64_t hash) {
  if (page == 0 || page > hashes_.size() || page == LockPage(page_size_)) return;
  if (remember_) changes_.push_back({page, hashes_[page - 1], Change::kSet});
  checksum_ ^= hashes_[page - 1] ^ hash;
  hashes_[page - 1] = hash;
}

void PageTable::Resize(uint32_t pages) {
  const uint32_t lock_page = LockPage(page_size_);
  while (hashes_.size() > pages) {
    // The lock page's entry is 0 and so leaves the checksum alone.
    if (remember_) changes_.push_back({this->pages(), hashes_.back(), Change::kCut});
    checksum_ ^= hashes_.back();
    hashes_.pop_back();
  }
  hashes_.reserve(pages);
  while (hashes_.size() < pages) {
    const uint32_t page = this->pages() + 1;
    hashes_.push_back(page == lock_page ? 0 : ZeroPageHash(page_size_, page));
    checksum_ ^= hashes_.back();
    if (remember_) changes_.push_back({page, 0, Change::kAdded});
  }
}

void PageTable::Begin() {
  remember_ = true;
  changes_.clear();
}

void PageTable::Commit() {
  remember_ = false;
  changes_.clear();
}

void PageTable::Rollback() {
  remember_ = false;
  for (auto change = changes_.rbegin(); change != changes_.rend(); ++change) {
    if (change->kind == Change::kAdded) {
      checksum_ ^= hashes_.back();
      hashes_.pop_back();
    } else if (change->kind == Change::kCut) {
      hashes_.push_back(change->hash);
      checksum_ ^= change->hash;
    } else {
      checksum_ ^= hashes_[change->page - 1] ^ change->hash;
      hashes_[change->page - 1] = change->hash;
    }
  }
  changes_.clear();
}

std::vector<uint32_t> PageTable::Changed() const {
  std::vector<uint32_t> pages;
  for (const Change& change : changes_)
    if (change.page <= hashes_.size()) pages.push_back(change.page);
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

void PageTable::Assign(uint32_t page_size, std::vector<uint64_t> hashes) {
  page_size_ = page_size;
  hashes_ = std::move(hashes);
  checksum_ = 0;
  remember_ = false;
  changes_.clear();
  const uint32_t lock_page = LockPage(page_size_);
  if (lock_page <= hashes_.size()) hashes_[lock_page - 1] = 0;
  for (uint64_t hash : hashes_) checksum_ ^= hash;
}

}  // namespace replica

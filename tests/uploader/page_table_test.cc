#include "uploader/page_table.h"

#include <gtest/gtest.h>

namespace replica {
namespace {

uint64_t Xor(const PageTable& table) {
  uint64_t sum = 0;
  for (uint64_t hash : table.hashes()) sum ^= hash;
  return sum;
}

TEST(PageTable, ChecksumIsTheXorOfItsPages) {
  PageTable table(4096);
  table.Resize(10);
  for (uint32_t page = 1; page <= 10; page++) EXPECT_EQ(table.Get(page), ZeroPageHash(4096, page));
  table.Set(3, 42);
  EXPECT_EQ(table.checksum(), Xor(table));
  table.Resize(2);
  EXPECT_EQ(table.checksum(), ZeroPageHash(4096, 1) ^ ZeroPageHash(4096, 2));
  table.Resize(4);
  EXPECT_EQ(table.Get(3), ZeroPageHash(4096, 3)) << "a page cut off is forgotten";
}

TEST(PageTable, LockPageHasNoPart) {
  const uint32_t lock = LockPage(65536);
  PageTable table(65536);
  table.Resize(lock + 1);
  const uint64_t before = table.checksum();
  table.Set(lock, 77);
  EXPECT_EQ(table.checksum(), before);
  EXPECT_EQ(table.Get(lock), 0U);
  table.Resize(lock - 1);
  table.Resize(lock + 1);
  EXPECT_EQ(table.checksum(), before);
}

TEST(PageTable, RollbackTakesBackSetGrowAndCut) {
  PageTable table(512);
  table.Resize(100);
  for (uint32_t page = 1; page <= 100; page++) table.Set(page, page * 1000);
  const auto hashes = table.hashes();
  const uint64_t checksum = table.checksum();
  table.Begin();
  table.Set(5, 1);
  table.Resize(50);
  table.Set(20, 2);
  table.Resize(120);
  table.Set(110, 3);
  table.Set(110, 4);
  EXPECT_EQ(table.checksum(), Xor(table));
  table.Rollback();
  EXPECT_EQ(table.hashes(), hashes);
  EXPECT_EQ(table.checksum(), checksum);
}

TEST(PageTable, ChangedNamesEachPageOnce) {
  PageTable table(512);
  table.Resize(10);
  table.Begin();
  table.Set(7, 1);
  table.Set(2, 1);
  table.Set(7, 2);
  table.Resize(12);
  table.Resize(11);
  EXPECT_EQ(table.Changed(), (std::vector<uint32_t>{2, 7, 11}));
}

}  // namespace
}  // namespace replica

#include "vfs/wal_format.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "base/fs.h"
#include "tests/temporary_folder.h"

namespace replica {
namespace {

// A WAL that SQLite itself wrote.
TEST(WalFormat, ReadsWhatSqliteWrites) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/a.db";
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(
      sqlite3_exec(db, "PRAGMA page_size=1024; PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)",
                   nullptr, nullptr, nullptr),
      SQLITE_OK);
  const std::string wal = *ReadFile(path + "-wal", UINT64_MAX);
  WalHeader header;
  const auto* bytes = reinterpret_cast<const uint8_t*>(wal.data());
  ASSERT_TRUE(ParseWalHeader(bytes, &header));
  EXPECT_EQ(header.page_size, 1024U);
  uint32_t sum[2] = {header.checksum[0], header.checksum[1]};
  int commits = 0;
  for (uint32_t frame = 1; FrameOffset(frame, 1024) < wal.size(); frame++) {
    const uint8_t* at = bytes + FrameOffset(frame, 1024);
    const FrameHeader h = ParseFrameHeader(at);
    uint32_t next[2];
    FrameChecksum(header.big_endian_checksum, at, 1024, sum, next);
    EXPECT_EQ(next[0], h.checksum[0]);
    EXPECT_EQ(next[1], h.checksum[1]);
    EXPECT_EQ(h.salts, header.salts);
    sum[0] = next[0];
    sum[1] = next[1];
    if (h.commit()) commits++;
  }
  EXPECT_EQ(commits, 2);

  const std::string shm = *ReadFile(path + "-shm", UINT64_MAX);
  WalIndexHeader index;
  ASSERT_TRUE(ReadWalIndexHeader(shm.data(), &index));
  EXPECT_EQ(index.wal_salts(), header.salts);
  EXPECT_EQ(index.page_size(), 1024U);
  EXPECT_EQ(FrameOffset(index.max_frame + 1, 1024), wal.size());
  EXPECT_EQ(index.changes, 2U);
  std::string torn = shm;
  torn[16] = static_cast<char>(torn[16] ^ 1);
  EXPECT_FALSE(ReadWalIndexHeader(torn.data(), &index));
  sqlite3_close(db);
}

}  // namespace
}  // namespace replica

#include "vfs/wal_source.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "tests/temporary_folder.h"

namespace replica {
namespace {

// SQLite's own VFS, but for a call before a frame's header is read from a WAL: once.
std::function<void()> before_header;
sqlite3_io_methods wal_methods;
int (*read_wal)(sqlite3_file*, void*, int, sqlite3_int64);

int ReadWal(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
  if (size == kFrameHeaderSize && before_header) std::exchange(before_header, {})();
  return read_wal(file, out, size, offset);
}

int OpenFileOfVfs(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
  auto* real = static_cast<sqlite3_vfs*>(vfs->pAppData);
  const int rc = real->xOpen(real, name, file, flags, out);
  if (rc == SQLITE_OK && (flags & SQLITE_OPEN_WAL) != 0) {
    wal_methods = *file->pMethods;
    read_wal = wal_methods.xRead;
    wal_methods.xRead = ReadWal;
    file->pMethods = &wal_methods;
  }
  return rc;
}

// The library calls SQLite as an extension does: by the table that SQLite hands it.
int SetApi(sqlite3*, char**, const sqlite3_api_routines* api) {
  SQLITE_EXTENSION_INIT2(api);
  return SQLITE_OK;
}
#undef sqlite3_auto_extension
#undef sqlite3_cancel_auto_extension
#undef sqlite3_open
#undef sqlite3_close
void TakeApi() {
  auto* entry = reinterpret_cast<void (*)()>(SetApi);
  sqlite3* db = nullptr;
  sqlite3_auto_extension(entry);
  ASSERT_EQ(sqlite3_open(":memory:", &db), SQLITE_OK);
  sqlite3_close(db);
  sqlite3_cancel_auto_extension(entry);
}

class WalSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    TakeApi();
    sqlite3_vfs* real = sqlite3_vfs_find(nullptr);
    vfs_ = *real;
    vfs_.zName = "before-header";
    vfs_.pAppData = real;
    vfs_.xOpen = OpenFileOfVfs;
    ASSERT_EQ(sqlite3_vfs_register(&vfs_, 0), SQLITE_OK);
    const std::string path = folder_.path() + "/a.db";
    ASSERT_EQ(sqlite3_open(path.c_str(), &db_), SQLITE_OK);
    Exec("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    auto database = Database::Create(path);
    ASSERT_TRUE(database.ok()) << database.status().message();
    database_ = *database;
    database_->SetVfs("before-header");
    sqlite3_file* file = nullptr;
    sqlite3_file_control(db_, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    ASSERT_EQ(file->pMethods->xShmMap(file, 0, kWalIndexRegion, 0, &region_), SQLITE_OK);
    database_->AddUser();
    database_->JudgeChain(region_, false);
    auto source = WalSource::Open(database_, false);
    ASSERT_TRUE(source.ok()) << source.status().message();
    source_ = std::move(*source);
    WalIndexHeader index;
    ASSERT_TRUE(ReadWalIndexHeader(region_, &index));
    const std::string wal = *ReadFile(path + "-wal", UINT64_MAX);
    const FrameHeader frame = ParseFrameHeader(reinterpret_cast<const uint8_t*>(wal.data()) +
                                               FrameOffset(index.max_frame, index.page_size()));
    WalPosition end;
    end.salts = index.wal_salts();
    end.frame = index.max_frame;
    end.checksum[0] = frame.checksum[0];
    end.checksum[1] = frame.checksum[1];
    source_->SetPosition(end);
    ASSERT_TRUE(*source_->Reachable({}));  // now it knows its chain
  }
  void TearDown() override {
    before_header = {};
    source_.reset();
    sqlite3_close(db_);
    sqlite3_vfs_unregister(&vfs_);
  }
  void Exec(const char* sql) { ASSERT_EQ(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr), SQLITE_OK); }

  TemporaryFolder folder_;
  sqlite3_vfs vfs_{};
  sqlite3* db_ = nullptr;
  volatile void* region_ = nullptr;
  std::shared_ptr<Database> database_;
  std::unique_ptr<WalSource> source_;
};

// A checkpoint emptied the WAL between a look at the wal-index and at the frame: the position counted as lost, and
// every page was compared.
TEST_F(WalSourceTest, Regression_TheWalIsRestartedWhileThePositionIsLookedFor) {
  before_header = [this] {
    database_->PassGate(region_, Database::RestartBy::kCheckpoint);
    Exec("PRAGMA wal_checkpoint(TRUNCATE)");
  };
  EXPECT_TRUE(*source_->Reachable({}));
  EXPECT_FALSE(before_header) << "no frame's header was read";
}

TEST_F(WalSourceTest, APositionBehindTheEndOfTheWalIsLost) {
  WalPosition at = source_->position();
  at.frame++;
  source_->SetPosition(at);
  EXPECT_FALSE(*source_->Reachable({}));
}

// A commit that came while the leader began to read had the time of the one before it, so that a restore to that time
// had both.
TEST_F(WalSourceTest, Regression_CommitsBesideTheLeaderHaveTheirOwnTimes) {
  constexpr size_t kCommits = 20000;
  Exec("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0");
  std::vector<std::pair<int64_t, int64_t>> made(kCommits);
  std::atomic<size_t> collected = 0;
  std::thread writer([&] {
    for (size_t i = 0; i < kCommits; i++) {
      // No more than the control block keeps the times of.
      while (i > collected.load() + kCommitTimes / 2) std::this_thread::yield();
      made[i].first = SystemClock().WallMicros();
      Exec("UPDATE t SET x = x + 1");
      database_->Tap(region_);
      made[i].second = SystemClock().WallMicros();
    }
  });
  std::vector<int64_t> times;
  while (times.size() < kCommits) {
    auto batch = source_->Collect(UINT64_C(1) << 30, nullptr);
    if (!batch.ok()) {
      collected.store(kCommits);
      break;
    }
    for (const BatchCommit& commit : batch->commits) times.push_back(commit.time);
    source_->Release(*batch);
    collected.store(times.size());
  }
  writer.join();
  ASSERT_EQ(times.size(), kCommits);
  for (size_t i = 0; i < kCommits; i++) {
    EXPECT_GE(times[i], made[i].first) << i;
    EXPECT_LE(times[i], made[i].second) << i;
  }
}

}  // namespace
}  // namespace replica

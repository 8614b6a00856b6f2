#include "vfs/database.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "tests/temporary_folder.h"

namespace replica {
namespace {

// A database that SQLite writes, and its wal-index as the tap sees it.
class DatabaseTest : public testing::Test {
 protected:
  // What SQLite's last close of a database with commits makes of it.
  void OpenAndClose() {
    Open();
    database_->PassGate(region_, Database::RestartBy::kClose);
    Exec("PRAGMA wal_checkpoint(TRUNCATE)");
    database_->NoteClosed();
    database_->RemoveUser();
  }
  void Open() {
    database_->AddUser();
    database_->JudgeChain(region_, false);
  }
  WalChain Chain() { return *database_->Chain(); }
  JournalChunk Journaled() {
    EXPECT_TRUE(database_->RemoveJournals(*database_->RotateJournal()).ok());
    EXPECT_TRUE(database_->JournalFrames(region_, UINT32_MAX).ok());
    JournalChunk chunk;
    const std::string bytes = *ReadFile(database_->RotateJournal()->front(), UINT64_MAX);
    EXPECT_TRUE(DecodeChunk(bytes.substr(0, kJournalChunkSize), &chunk));
    return chunk;
  }

  void SetUp() override {
    path_ = folder_.path() + "/a.db";
    ASSERT_EQ(sqlite3_open(path_.c_str(), &db_), SQLITE_OK);
    Exec("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
    auto database = Database::Create(path_);
    ASSERT_TRUE(database.ok()) << database.status().message();
    database_ = *database;
    sqlite3_file* file = nullptr;
    sqlite3_file_control(db_, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    volatile void* region = nullptr;
    ASSERT_EQ(file->pMethods->xShmMap(file, 0, kWalIndexRegion, 0, &region), SQLITE_OK);
    region_ = region;
    control()->active.store(1);
    control()->spool_limit.store(UINT64_C(1) << 30);
  }
  void TearDown() override { sqlite3_close(db_); }

  void Exec(const char* sql) { ASSERT_EQ(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr), SQLITE_OK); }
  ControlBlock* control() { return database_->control(); }
  WalIndexHeader Index() {
    WalIndexHeader header{};
    EXPECT_TRUE(ReadWalIndexHeader(region_, &header));
    return header;
  }

  TemporaryFolder folder_;
  std::string path_;
  sqlite3* db_ = nullptr;
  const volatile void* region_ = nullptr;
  std::shared_ptr<Database> database_;
};

TEST_F(DatabaseTest, TapPublishesCommitsOnly) {
  database_->Tap(region_);
  const uint64_t before = control()->committed.load();
  Exec("BEGIN; INSERT INTO t VALUES(1); ROLLBACK");
  database_->Tap(region_);
  EXPECT_EQ(control()->committed.load(), before);
  Exec("INSERT INTO t VALUES(1)");
  database_->Tap(region_);
  EXPECT_EQ(control()->committed.load(), PackPosition(Index().wal_salts(), Index().max_frame));
  EXPECT_EQ(control()->committed_changes.load(), Index().changes);
}

TEST_F(DatabaseTest, OneWakeUpForManyCommits) {
  control()->wake_at.store(kWakeAtAnyCommit);
  for (int i = 0; i < 10; i++) {
    Exec("INSERT INTO t VALUES(1)");
    database_->Tap(region_);
  }
  EXPECT_EQ(control()->commit_wakes.load(), 1U);
}

TEST_F(DatabaseTest, Invariant_NoCommitLost_GateJournalsWhatIsNotDurable) {
  Exec("INSERT INTO t VALUES(randomblob(9000))");
  database_->PassGate(region_, Database::RestartBy::kClose);
  const WalIndexHeader index = Index();
  EXPECT_EQ(control()->durable.load(), PackPosition(index.wal_salts(), index.max_frame));
  auto journals = database_->RotateJournal();
  ASSERT_TRUE(journals.ok());
  ASSERT_EQ(journals->size(), 1U);
  const std::string bytes = *ReadFile(journals->front(), UINT64_MAX);
  JournalChunk chunk;
  ASSERT_TRUE(DecodeChunk(bytes.substr(0, kJournalChunkSize), &chunk));
  EXPECT_EQ(chunk.first, 1U);
  EXPECT_EQ(chunk.count, index.max_frame);
  EXPECT_EQ(bytes.size(), kJournalChunkSize + chunk.bytes());
  const std::string wal = *ReadFile(path_ + "-wal", UINT64_MAX);
  EXPECT_EQ(bytes.substr(kJournalChunkSize), wal.substr(kWalHeaderSize));
  // A second pass has nothing to add.
  database_->PassGate(region_, Database::RestartBy::kClose);
  EXPECT_TRUE(database_->RemoveJournals(*journals).ok());
  EXPECT_EQ(control()->journal_total.load(), 0U);
}

TEST_F(DatabaseTest, Invariant_NeverInTheWay_FullSpoolLetsTheRestartGo) {
  control()->spool_limit.store(10);
  control()->spool_bytes.store(100);
  Exec("INSERT INTO t VALUES(1)");
  database_->PassGate(region_, Database::RestartBy::kClose);
  EXPECT_EQ(control()->overflow.load(), 1U);
  EXPECT_EQ(control()->active.load(), 0U);
}

TEST_F(DatabaseTest, DurableNeverGoesBackBehindTheJournal) {
  Exec("INSERT INTO t VALUES(1)");
  const WalIndexHeader index = Index();
  database_->PassGate(region_, Database::RestartBy::kClose);
  const uint64_t durable = control()->durable.load();
  database_->AdvanceDurable(PackPosition(index.wal_salts(), 1));
  EXPECT_EQ(control()->durable.load(), durable);
  WalSalts older = index.wal_salts();
  older[3]--;
  database_->AdvanceDurable(PackPosition(older, 500));
  EXPECT_EQ(control()->durable.load(), durable) << "the journal is of the later WAL";
}

// "No limit" once overflowed unless the copy began at frame 1: a large transaction behind an already captured one was
// an error until the WAL restarted.
TEST_F(DatabaseTest, Regression_JournalWithoutLimitFromTheMiddleOfTheWal) {
  Exec("INSERT INTO t VALUES(1)");
  database_->AdvanceDurable(PackPosition(Index().wal_salts(), Index().max_frame));
  Exec("INSERT INTO t VALUES(randomblob(9000))");
  const Status status = database_->JournalFrames(region_, UINT32_MAX);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(control()->durable.load(), PackPosition(Index().wal_salts(), Index().max_frame));
}

// --- the chain of WALs

// A journal written after a crash did not name the WAL before its own, so its commits were merged into one.
TEST_F(DatabaseTest, Regression_JournalAfterACrashNamesTheWalBeforeItsOwn) {
  Open();
  const uint32_t end = Index().max_frame;
  database_->PassGate(region_, Database::RestartBy::kClose);
  Exec("PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(1)");
  database_->Tap(region_);
  const WalChain chain = Chain();
  EXPECT_EQ(chain.ordinal, 2U);
  database_->RemoveUser();
  Open();  // nobody was there
  const JournalChunk chunk = Journaled();
  EXPECT_EQ(chunk.first, 1U);
  EXPECT_EQ(chunk.chain, chain.id);
  EXPECT_EQ(chunk.ordinal, 2U);
  EXPECT_EQ(chunk.previous_end, end);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, TheFirstWalAfterACloseIsTheNext) {
  Open();
  const WalChain before = Chain();
  database_->RemoveUser();
  OpenAndClose();
  Open();
  Exec("INSERT INTO t VALUES(1)");
  database_->Tap(region_);
  EXPECT_EQ(Chain().id, before.id);
  EXPECT_EQ(Chain().ordinal, before.ordinal + 1);
  EXPECT_EQ(Chain().previous_end, before.end);
  EXPECT_EQ(Journaled().ordinal, before.ordinal + 1);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, AVisitWithoutACommitLeavesTheChain) {
  OpenAndClose();
  const WalChain before = Chain();
  OpenAndClose();
  EXPECT_EQ(Chain().id, before.id);
  EXPECT_EQ(Chain().ordinal, before.ordinal);
  EXPECT_EQ(Chain().end, before.end);
}

TEST_F(DatabaseTest, Invariant_NoSilentGap_AFileThatWasWrittenToSinceTheCloseBeginsAChain) {
  OpenAndClose();
  const uint64_t id = Chain().id;
  struct timespec times[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  Open();
  EXPECT_NE(Chain().id, id);
  EXPECT_EQ(Chain().opened, HashOf(StampOf(path_)));
  database_->RemoveUser();
}

TEST_F(DatabaseTest, Invariant_NoSilentGap_CommitsThatDiedBehindAGateBeginAChain) {
  Open();
  database_->PassGate(region_, Database::RestartBy::kClose);
  const uint64_t id = Chain().id;
  Exec("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)");
  control()->active.store(1);
  database_->PassGate(region_, Database::RestartBy::kClose);
  EXPECT_NE(Chain().id, id);
  EXPECT_EQ(control()->overflow.load(), 1U);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, CommitsOfOthersAreCountedInTheWalThatTheyBegan) {
  Open();
  const WalChain before = Chain();
  Exec("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); INSERT INTO t VALUES(3)");
  database_->Tap(region_);
  EXPECT_EQ(Chain().id, before.id) << "three were counted, and three are there";
  EXPECT_EQ(Chain().ordinal, before.ordinal + 1);
  Exec("INSERT INTO t VALUES(4); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(5); INSERT INTO t VALUES(6)");
  database_->Tap(region_);
  EXPECT_NE(Chain().id, before.id) << "three were counted, and two are there";
  database_->RemoveUser();
}

TEST_F(DatabaseTest, OnlyTheFirstUserIsJudged) {
  Open();
  auto other = Database::Find(path_);  // of another process, as far as locks go
  ASSERT_TRUE(other.ok());
  (*other)->AddUser();
  EXPECT_TRUE(Chain().judged);
  database_->RemoveUser();
  database_->AddUser();
  EXPECT_TRUE(Chain().judged) << "somebody was there all the time";
  database_->RemoveUser();
  (*other)->RemoveUser();
  database_->AddUser();
  EXPECT_FALSE(Chain().judged);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, ControlBlockOfAnEarlierBootIsReplaced) {
  control()->boot.store(1);
  control()->committed.store(77);
  auto again = ControlMapping::Open(database_->folder());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)->block()->committed.load(), 0U);
}

}  // namespace
}  // namespace replica

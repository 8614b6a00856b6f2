#include "vfs/database.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "tests/temporary_folder.h"

namespace replica {
namespace {

// A database that SQLite writes, and its wal-index as the tap sees it.
class DatabaseTest : public testing::Test {
 protected:
  // What SQLite's last close of a database with commits makes of it.
  ClosedAt OpenAndClose() {
    database_->AddUser();
    database_->PassGate(region_);
    const ClosedAt at = database_->Closing(region_);
    Exec("PRAGMA wal_checkpoint(TRUNCATE)");
    database_->NoteClosed(at);
    database_->RemoveUser();
    return at;
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
  database_->PassGate(region_);
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
  database_->PassGate(region_);
  EXPECT_TRUE(database_->RemoveJournals(*journals).ok());
  EXPECT_EQ(control()->journal_total.load(), 0U);
}

TEST_F(DatabaseTest, Invariant_NeverInTheWay_FullSpoolLetsTheRestartGo) {
  control()->spool_limit.store(10);
  control()->spool_bytes.store(100);
  Exec("INSERT INTO t VALUES(1)");
  database_->PassGate(region_);
  EXPECT_EQ(control()->overflow.load(), 1U);
  EXPECT_EQ(control()->active.load(), 0U);
}

TEST_F(DatabaseTest, DurableNeverGoesBackBehindTheJournal) {
  Exec("INSERT INTO t VALUES(1)");
  const WalIndexHeader index = Index();
  database_->PassGate(region_);
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

// A journal written after a crash was without the gate before its WAL, so its commits were merged into one.
TEST_F(DatabaseTest, Regression_JournalAfterACrashNamesTheGateBeforeItsWal) {
  database_->AddUser();
  const WalSalts before = Index().wal_salts();
  database_->PassGate(region_);
  const uint64_t gate = control()->gate_position.load();
  Exec("PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(1)");
  ASSERT_NE(Index().wal_salts(), before);
  database_->Tap(region_);
  const uint32_t changes = Index().changes;
  database_->RemoveUser();
  database_->AddUser();  // nobody was there: the gate's count is void, the first commit's is not
  uint32_t ignored = 0;
  EXPECT_EQ(database_->LastGate(database_->Life(), &ignored), 0U);
  ASSERT_TRUE(database_->RemoveJournals(*database_->RotateJournal()).ok());
  ASSERT_TRUE(database_->JournalFrames(region_, UINT32_MAX).ok());
  JournalChunk chunk;
  const std::string bytes = *ReadFile(database_->RotateJournal()->front(), UINT64_MAX);
  ASSERT_TRUE(DecodeChunk(bytes.substr(0, kJournalChunkSize), &chunk));
  EXPECT_EQ(chunk.first, 1U);
  EXPECT_EQ(chunk.gate_position, gate);
  EXPECT_EQ(chunk.begin_frame, Index().max_frame);
  EXPECT_EQ(chunk.begin_changes, changes);
  database_->RemoveUser();
}

// --- the note of the last close

TEST_F(DatabaseTest, ACloseIsNotedUntilTheFileIsWrittenTo) {
  database_->AddUser();
  database_->PassGate(region_);
  const ClosedAt at = database_->Closing(region_);
  EXPECT_EQ(at.gate, PackPosition(Index().wal_salts(), Index().max_frame));
  EXPECT_EQ(at.anchor.life, 0U) << "the WAL holds commits";
  Exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database_->NoteClosed(at);
  const FileStamp stamp = StampOf(path_);
  EXPECT_EQ(database_->Closed(stamp).gate, at.gate);
  EXPECT_EQ(database_->Closed(stamp).stamp, stamp);
  FileStamp other = stamp;
  other.modified++;
  EXPECT_EQ(database_->Closed(other).gate, 0U);
  EXPECT_EQ(database_->Closed({}).gate, 0U);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, Invariant_NoSilentGap_ACloseAfterCommitsThatPassedNoGateIsNotNoted) {
  database_->AddUser();
  database_->PassGate(region_);
  Exec("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)");
  const ClosedAt at = database_->Closing(region_);
  EXPECT_EQ(at.gate, 0U);
  EXPECT_EQ(at.anchor.life, 0U);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, AVisitWithoutACommitLeavesTheNote) {
  const ClosedAt at = OpenAndClose();
  database_->AddUser();
  const uint64_t life = database_->Life();
  database_->NoteClosed({{}, 0, {life, 0, 0}});
  EXPECT_EQ(database_->Closed(StampOf(path_)).gate, at.gate);
  EXPECT_EQ(database_->Closed(StampOf(path_)).anchor, (WalAnchor{life, 0, 0})) << "of the visit";
  // Commits whose number is known, but not where their WAL ended: the gate is not the last one any more.
  database_->NoteClosed({{}, 0, {life, 3, 0}});
  EXPECT_EQ(database_->Closed(StampOf(path_)).gate, 0U);
  database_->RemoveUser();
}

TEST_F(DatabaseTest, TheFirstWalOfALifeFollowsTheCloseBefore) {
  const ClosedAt at = OpenAndClose();
  database_->AddUser();
  Exec("INSERT INTO t VALUES(1)");
  database_->Tap(region_);
  const Database::WalBegin begin = database_->BeginOf(Index().wal_salts(), database_->Life());
  EXPECT_EQ(begin.gate, 0U) << "of another life";
  EXPECT_EQ(begin.closed, at.gate);
  ASSERT_TRUE(database_->RemoveJournals(*database_->RotateJournal()).ok());
  ASSERT_TRUE(database_->JournalFrames(region_, UINT32_MAX).ok());
  JournalChunk chunk;
  const std::string bytes = *ReadFile(database_->RotateJournal()->front(), UINT64_MAX);
  ASSERT_TRUE(DecodeChunk(bytes.substr(0, kJournalChunkSize), &chunk));
  EXPECT_EQ(chunk.closed, at.gate);
  EXPECT_EQ(chunk.life, database_->Life());
  database_->RemoveUser();
}

TEST_F(DatabaseTest, ALifeEndsWhenNobodyUsesTheIndex) {
  database_->AddUser();
  const uint64_t first = database_->Life();
  auto other = Database::Find(path_);  // of another process, as far as locks go
  ASSERT_TRUE(other.ok());
  (*other)->AddUser();
  EXPECT_EQ(database_->Life(), first);
  database_->RemoveUser();
  database_->AddUser();
  EXPECT_EQ(database_->Life(), first) << "somebody was there all the time";
  database_->RemoveUser();
  (*other)->RemoveUser();
  database_->AddUser();
  EXPECT_NE(database_->Life(), first);
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

#include "uploader/state.h"

#include <gtest/gtest.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>

#include "base/boot.h"
#include "base/fs.h"
#include "base/hash.h"
#include "tests/temporary_folder.h"

namespace replica {
namespace {

class StateTest : public testing::Test {
 protected:
  StateTest() : file_(folder_.path()), table_(512) {
    table_.Resize(1000);
    for (uint32_t page = 1; page <= 1000; page++) table_.Set(page, page * 7919);
    state_.page_size = 512;
    state_.txid = 5;
    state_.checksum = table_.checksum();
    state_.url = "file:///x";
    EXPECT_TRUE(file_.SaveAll(&state_, table_).ok());
  }

  void Change() {
    table_.Begin();
    table_.Resize(1010);
    table_.Set(3, 1);
    table_.Set(700, 2);
    state_.txid = 6;
    state_.checksum = table_.checksum();
    EXPECT_TRUE(file_.Save(&state_, table_, table_.Changed()).ok());
    table_.Commit();
  }

  void ExpectLoaded() {
    PageTable table;
    bool valid = false;
    auto loaded = file_.Load(&table, &valid);
    ASSERT_TRUE(loaded.ok() && loaded->has_value());
    EXPECT_TRUE(valid);
    EXPECT_EQ((*loaded)->txid, state_.txid);
    EXPECT_EQ(table.hashes(), table_.hashes());
  }

  TemporaryFolder folder_;
  StateFile file_;
  PageTable table_;
  EngineState state_;
};

TEST_F(StateTest, SavedStatesComeBack) {
  state_.wal.chain = 1;
  state_.wal.ordinal = 2;
  state_.stamp = {1, 2, 3, 4, 5};
  ASSERT_TRUE(file_.SaveAll(&state_, table_).ok());
  PageTable ignored;
  bool valid = false;
  auto loaded = file_.Load(&ignored, &valid);
  EXPECT_EQ((*loaded)->wal.chain, 1U);
  EXPECT_EQ((*loaded)->wal.ordinal, 2U);
  EXPECT_EQ((*loaded)->stamp, state_.stamp);
  ExpectLoaded();
  Change();
  ExpectLoaded();
}

// A crash between the redo file and the change in place, or in the middle of that change.
TEST_F(StateTest, RedoCompletesATornSave) {
  const std::string path = folder_.path() + "/state";
  const std::string before = *ReadFile(path, UINT64_MAX);
  Change();
  const std::string after = *ReadFile(path, UINT64_MAX);
  ASSERT_TRUE(ReplaceFile(path, before, false).ok());
  ExpectLoaded();
  // Half of the hashes are written, the header is not.
  std::string torn = before.substr(0, 4096) + after.substr(4096, 2000) + before.substr(4096 + 2000);
  ASSERT_TRUE(ReplaceFile(path, torn, false).ok());
  ExpectLoaded();
}

// The next save replaced a redo that a crash had kept from the file: its hashes were lost, and the leader after it read
// the whole replica.
TEST_F(StateTest, RegressionARedoOutlivesTheNextSave) {
  const std::string path = folder_.path() + "/state";
  const std::string before = *ReadFile(path, UINT64_MAX);
  Change();
  ASSERT_TRUE(ReplaceFile(path, before, false).ok());
  PageTable table;
  bool valid = false;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok() && loaded->has_value() && valid);
  ASSERT_TRUE(file_.Save(&**loaded, table, {}).ok());
  ExpectLoaded();
}

// A power loss tore the state's header, and the loader ignored the whole and newer redo beside it: the database was
// unknown, and refused at its own URL.
TEST_F(StateTest, RegressionATornHeaderDoesNotHideTheRedo) {
  const std::string path = folder_.path() + "/state";
  Change();
  std::string bytes = *ReadFile(path, UINT64_MAX);
  std::fill(bytes.begin(), bytes.begin() + 4096, '\0');
  ASSERT_TRUE(ReplaceFile(path, bytes, false).ok());
  ExpectLoaded();
  // Nothing of the state is there: the redo says which history it is, without the page hashes.
  Change();
  ASSERT_TRUE(ReplaceFile(path, "", false).ok());
  PageTable table;
  bool valid = true;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok() && loaded->has_value());
  EXPECT_FALSE(valid);
  EXPECT_EQ((*loaded)->txid, state_.txid);
  EXPECT_EQ(file_.LoadHeader()->txid, state_.txid);
}

// A redo of 4 KiB that says it is of 2^32 - 1 pages took 32 GiB of memory.
TEST_F(StateTest, RegressionARedoTakesNoMemoryThatItsSizeDoesNotJustify) {
  state_.checksum = 1;
  ASSERT_TRUE(file_.Save(&state_, table_, {}).ok());
  const std::string path = folder_.path() + "/state-redo";
  std::string redo = *ReadFile(path, UINT64_MAX);
  StoreLittle<uint32_t>(redo.data() + 68, 0xffffffff);
  StoreLittle<uint64_t>(redo.data() + 4088, Hash64(std::string_view(redo).substr(0, 4088)));
  StoreLittle<uint64_t>(redo.data() + 8, state_.revision + 1);
  StoreLittle<uint64_t>(redo.data() + 4088, Hash64(std::string_view(redo).substr(0, 4088)));
  ASSERT_TRUE(ReplaceFile(path, redo, false).ok());
  PageTable table;
  bool valid = true;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok() && loaded->has_value());
  EXPECT_EQ((*loaded)->pages, 0xffffffffU);
  EXPECT_FALSE(valid);
}

TEST_F(StateTest, WhatWasSavedKnowsItsBootAndFile) {
  state_.file = {7, 8};
  state_.behind = state_.claim_due = true;
  ASSERT_TRUE(file_.SaveAll(&state_, table_).ok());
  const auto loaded = file_.LoadHeader();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->boot, BootHash());
  EXPECT_EQ(loaded->file, state_.file);
  EXPECT_TRUE(loaded->behind && loaded->claim_due && !loaded->restored);
}

// Version 0.1 noted neither boot nor file.
TEST_F(StateTest, AStateOfAnOlderVersionIsOfThisBootWhenItWasWrittenSince) {
  const std::string path = folder_.path() + "/state";
  std::string bytes = *ReadFile(path, UINT64_MAX);
  const size_t tail = bytes.find(state_.url) + state_.url.size();
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(tail), 24, '\0');
  StoreLittle<uint64_t>(bytes.data() + 4088, Hash64(std::string_view(bytes).substr(0, 4088)));
  ASSERT_TRUE(ReplaceFile(path, bytes, false).ok());
  EXPECT_EQ(file_.LoadHeader()->boot, BootHash());
  EXPECT_EQ(file_.LoadHeader()->file, FileId{});
  const timeval long_ago[2] = {{1000000000, 0}, {1000000000, 0}};
  ASSERT_EQ(::utimes(path.c_str(), long_ago), 0);
  EXPECT_EQ(file_.LoadHeader()->boot, 0U);
}

TEST_F(StateTest, ACopiedFolderIsAnotherOne) {
  const TemporaryFolder copy;
  EXPECT_TRUE(file_.IsFolder(file_.FolderIdentity()));
  EXPECT_FALSE(StateFile(copy.path()).IsFolder(file_.FolderIdentity()));
  // The same folder under another path.
  const std::string link = copy.path() + "/link";
  ASSERT_EQ(::symlink(folder_.path().c_str(), link.c_str()), 0);
  EXPECT_TRUE(StateFile(link).IsFolder(file_.FolderIdentity()));
}

TEST(FileStampTest, TheUnitOfItsTimes) {
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000123456789, 1700000000123456780}), 1);
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000123456700, 1700000000123456700}), 100);
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000123456000, 1700000000123456000}), 1000);
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000120000000, 1700000000120000000}), 10000000);
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000000000000, 1700000000000000000}), 1000000000);
  EXPECT_EQ(TimeUnit({1, 2, 3, 1700000000000000000, 1700000000000000001}), 1);  // one of them was set by hand
}

TEST_F(StateTest, HashesThatDoNotAddUpAreNotUsed) {
  const std::string path = folder_.path() + "/state";
  std::string bytes = *ReadFile(path, UINT64_MAX);
  bytes[5000] = static_cast<char>(bytes[5000] ^ 1);
  ASSERT_TRUE(ReplaceFile(path, bytes, false).ok());
  PageTable table;
  bool valid = true;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok() && loaded->has_value());
  EXPECT_FALSE(valid);
}

TEST_F(StateTest, DamagedHeaderIsNoState) {
  const std::string path = folder_.path() + "/state";
  std::string bytes = *ReadFile(path, UINT64_MAX);
  bytes[20] = static_cast<char>(bytes[20] ^ 1);
  ASSERT_TRUE(ReplaceFile(path, bytes, false).ok());
  ASSERT_TRUE(RemoveFile(folder_.path() + "/state-redo").ok());
  PageTable table;
  bool valid = true;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok());
  EXPECT_FALSE(loaded->has_value());
}

TEST(Generation, IdsSortByTime) {
  EXPECT_LT(HexEncode(*NewGenerationId(1000000, {})), HexEncode(*NewGenerationId(2000000, {})));
}

// A generation begun while the clock was behind sorted before the one that it followed, and no reader found it.
TEST(Generation, AnIdSortsBehindEveryOneThatIsListed) {
  const Id newest = *NewGenerationId(2000000, {});
  EXPECT_LT(HexEncode(newest), HexEncode(*NewGenerationId(1000000, newest)));
  Id last;
  last.fill(0xff);
  EXPECT_EQ(NewGenerationId(1000000, last).status().code(), Code::kConflict);
}

}  // namespace
}  // namespace replica

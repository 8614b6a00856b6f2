#include "uploader/state.h"

#include <gtest/gtest.h>

#include "base/fs.h"
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
  state_.anchor = {1, 2, 3};
  state_.stamp = {1, 2, 3, 4, 5};
  ASSERT_TRUE(file_.SaveAll(&state_, table_).ok());
  PageTable ignored;
  bool valid = false;
  auto loaded = file_.Load(&ignored, &valid);
  EXPECT_EQ((*loaded)->anchor, state_.anchor);
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
  PageTable table;
  bool valid = true;
  auto loaded = file_.Load(&table, &valid);
  ASSERT_TRUE(loaded.ok());
  EXPECT_FALSE(loaded->has_value());
}

TEST(Generation, IdsSortByTime) {
  EXPECT_LT(HexEncode(NewGenerationId(1000000)), HexEncode(NewGenerationId(2000000)));
}

}  // namespace
}  // namespace replica

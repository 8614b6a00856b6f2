#include "uploader/file_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/fs.h"
#include "tests/temporary_folder.h"

namespace replica {
namespace {

TEST(FileStore, PutGetListDelete) {
  TemporaryFolder folder;
  FileStore store(folder.path() + "/r", std::make_shared<Worker>("test"));
  EXPECT_TRUE(store.List("", "", false)->objects.empty()) << "a folder that is not there yet is empty";
  ASSERT_TRUE(store.Put("g/log/1", ObjectBody::FromBytes("hello"), true).ok());
  ASSERT_TRUE(store.Put("g/log/2", ObjectBody::FromBytes("world"), true).ok());
  ASSERT_TRUE(store.Put("h/log/1", ObjectBody::FromBytes("x"), true).ok());
  EXPECT_EQ(*store.Get("g/log/1", 1, 3), "ell");
  EXPECT_EQ(*store.Get("g/log/1", 3, 100), "lo");
  EXPECT_EQ(*store.Size("g/log/1"), 5U);
  EXPECT_EQ(store.Get("g/log/9", 0, 1).status().code(), Code::kNotFound);
  auto log = store.List("g/log/", "g/log/1", false);
  ASSERT_EQ(log->objects.size(), 1U);
  EXPECT_EQ(log->objects[0].key, "g/log/2");
  EXPECT_EQ(store.List("", "", true)->folders, (std::vector<std::string>{"g/", "h/"}));
  ASSERT_TRUE(store.Delete({"g/log/1", "never/was"}).ok());
  EXPECT_EQ(store.Size("g/log/1").status().code(), Code::kNotFound);
}

TEST(FileStore, Invariant_OneWriter_OfRacingWritersOneGetsThrough) {
  TemporaryFolder folder;
  for (int round = 0; round < 20; round++) {
    std::atomic<int> through{0};
    std::vector<std::thread> writers;
    for (int i = 0; i < 4; i++) {
      writers.emplace_back([&, i] {
        FileStore store(folder.path(), std::make_shared<Worker>("test"));
        Status status = store.Put("log/" + std::to_string(round), ObjectBody::FromBytes(std::to_string(i)), true);
        if (status.ok())
          through++;
        else
          EXPECT_EQ(status.code(), Code::kExists);
      });
    }
    for (std::thread& writer : writers) writer.join();
    EXPECT_EQ(through, 1);
  }
}

}  // namespace
}  // namespace replica

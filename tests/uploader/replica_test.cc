#include "uploader/replica.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "tests/temporary_folder.h"
#include "uploader/file_store.h"

namespace replica {
namespace {

// One object in memory, and a count of the requests for it.
class CountingStore : public Store {
 public:
  explicit CountingStore(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& url() const override { return url_; }
  void PutAsync(const std::string& /*key*/, ObjectBody /*body*/, bool /*if_absent*/, Done done) override {
    done(Status(Code::kUnsupported, "read only"));
  }
  Result<std::string> Get(const std::string& /*key*/, uint64_t offset, uint64_t size) override {
    gets++;
    return bytes_.substr(offset, size);
  }
  Result<uint64_t> Size(const std::string& /*key*/) override { return uint64_t{bytes_.size()}; }
  Result<Listing> List(const std::string& /*prefix*/, const std::string& /*after*/, bool /*folders_only*/) override {
    return Listing{};
  }
  Status Delete(const std::vector<std::string>& /*keys*/) override { return Ok(); }
  Result<int64_t> ServerTime() override { return int64_t{0}; }

  std::atomic<int> gets{0};

 private:
  const std::string url_ = "memory://";
  const std::string bytes_;
};

// The index of a large object, read first, once made every block a request of its own: minutes for a restore from S3.
TEST(StoreBytes, Regression_BlocksOfALargeObjectComeInLargePieces) {
  std::string bytes(40 << 20, '\0');
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) StoreLittle<uint64_t>(bytes.data() + i, random());
  CountingStore store(bytes);
  StoreBytes object(&store, "key", bytes.size());
  auto check = [&](uint64_t offset, uint64_t size) {
    auto read = object.Read(offset, size);
    ASSERT_TRUE(read.ok()) << read.status().message();
    ASSERT_TRUE(*read == bytes.substr(offset, size)) << offset;
  };
  // As SegmentReader does: header, trailer, index, then the blocks in order.
  check(0, 96);
  check(bytes.size() - 200, 200);
  check(bytes.size() - 100200, 100000);
  for (uint64_t at = 96; at < bytes.size() - 100200;) {
    const uint64_t size = std::min<uint64_t>(1000 + random() % 60000, bytes.size() - 100200 - at);
    check(at, size);
    at += size;
  }
  EXPECT_LE(store.gets.load(), 10);
  check(0, 96);  // and from the beginning again
  check(96, 5000);
  EXPECT_LE(store.gets.load(), 13);
  EXPECT_FALSE(object.Read(bytes.size() - 10, 11).ok());
}

// A generation that another one takes the place of has an END behind its log.
TEST(ReplicaTest, AnEndedLogIsReadAsItsSegments) {
  TemporaryFolder folder;
  FileStore store(folder.path(), std::make_shared<Worker>("test"));
  SegmentHeader header;
  header.generation = {1, 2, 3};
  header.database = {4};
  header.writer = 99;
  header.sequence = 1;
  const std::string end = EncodeEnd(header, 1000);
  ASSERT_EQ(end.size(), kEndSize);
  ASSERT_TRUE(store.Put(LogKey(header.generation, 1), ObjectBody::FromBytes(end), true).ok());
  auto head = ReadHead(&store, header.generation);
  ASSERT_TRUE(head.ok()) << head.status().message();
  EXPECT_FALSE(head->any);
  ASSERT_TRUE(head->end.has_value());
  EXPECT_EQ(head->end->writer, 99U);
  EXPECT_TRUE(ListLog(&store, header.generation, 0)->empty());
}

// An object of the same size that is no END must not pass for one: the log would end there without a word.
TEST(ReplicaTest, Invariant_NoSilentGap_WhatIsNotAnEndEndsNothing) {
  TemporaryFolder folder;
  FileStore store(folder.path(), std::make_shared<Worker>("test"));
  SegmentHeader header;
  header.generation = {1, 2, 3};
  header.sequence = 2;
  const std::string key = LogKey(header.generation, 1);
  ASSERT_TRUE(store.Put(key, ObjectBody::FromBytes(EncodeEnd(header, 1000)), true).ok());
  EXPECT_EQ(ListLog(&store, header.generation, 0)->size(), 1U) << "it says that it is of another number";
  ASSERT_TRUE(store.Put(key, ObjectBody::FromBytes(std::string(kEndSize, 'x')), false).ok());
  EXPECT_FALSE(ListLog(&store, header.generation, 0).ok()) << "damaged";
}

}  // namespace
}  // namespace replica

#include <gtest/gtest.h>

#include <cerrno>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/control_block.h"
#include "base/fs.h"
#include "base/sha256.h"
#include "tests/temporary_folder.h"

namespace replica {
namespace {

TEST(Bytes, VarintsComeBack) {
  for (uint64_t v : {UINT64_C(0), UINT64_C(127), UINT64_C(128), UINT64_C(300), UINT64_MAX}) {
    std::string out;
    AppendVarint(out, v);
    ByteReader in(out);
    EXPECT_EQ(in.Varint(), v);
    EXPECT_TRUE(in.ok());
    EXPECT_EQ(in.remaining(), 0U);
  }
}

TEST(Bytes, NumbersAreDigitsOnly) {
  EXPECT_EQ(ParseNumber("0"), 0U);
  EXPECT_EQ(ParseNumber("9223372036854775807"), static_cast<uint64_t>(INT64_MAX));
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "0x1", "9223372036854775808", "99999999999999999999999"})
    EXPECT_EQ(ParseNumber(bad), std::nullopt) << bad;
}

// looked_at and others went into subtractions as they were.
TEST(ControlBlock, ATimeThatSomebodyScribbledIsNone) {
  std::atomic<int64_t> time{0};
  for (int64_t scribbled : {INT64_MIN, INT64_C(-1), INT64_C(0), INT64_C(253402300800000000), INT64_MAX}) {
    time = scribbled;
    EXPECT_EQ(LoadTime(time), 0) << scribbled;
  }
  time = 1764000000000000;
  EXPECT_EQ(LoadTime(time), 1764000000000000);
}

TEST(Bytes, ReadingPastTheEndIsNoticed) {
  ByteReader in(std::string_view("\xff\xff", 2));
  in.Varint();
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.Little<uint64_t>(), 0U);
}

TEST(Bytes, ZigZagKeepsTheExtremes) {
  for (int64_t v : {INT64_MIN, INT64_C(-1), INT64_C(0), INT64_C(1), INT64_MAX}) EXPECT_EQ(UnZigZag(ZigZag(v)), v);
}

TEST(Bytes, IdsAreParsedStrictly) {
  Id id{};
  EXPECT_TRUE(ParseId("00112233445566778899aabbccddeeff", &id));
  EXPECT_EQ(HexEncode(id), "00112233445566778899aabbccddeeff");
  EXPECT_FALSE(ParseId("00112233445566778899AABBCCDDEEFF", &id));
  EXPECT_FALSE(ParseId("../..", &id));
  uint64_t number = 0;
  EXPECT_TRUE(ParseHex16("00000000000000ff", &number));
  EXPECT_EQ(number, 255U);
  EXPECT_FALSE(ParseHex16("ff", &number));
  EXPECT_EQ(Hex16(255), "00000000000000ff");
}

// RFC 4231: test cases 1, 2 and 6 (a key longer than a block).
TEST(Sha256, HmacIsRfc4231s) {
  auto hmac = [](const std::string& key, const std::string& bytes) {
    const Sha256::Digest digest = HmacSha256(key, bytes);
    return HexEncode(digest.data(), digest.size());
  };
  EXPECT_EQ(hmac(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hmac("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Clock, TimesAreReadInEachForm) {
  int64_t t = 0;
  ASSERT_TRUE(ParseTime("2026-11-23T06:25:00.5Z", &t));
  EXPECT_EQ(FormatTime(t), "2026-11-23T06:25:00.500000Z");
  int64_t other = 0;
  ASSERT_TRUE(ParseTime("2026-11-23 08:25:00.500+02:00", &other));
  EXPECT_EQ(other, t);
  EXPECT_FALSE(ParseTime("2026-13-01T00:00:00Z", &t));
  EXPECT_FALSE(ParseTime("yesterday", &t));
  EXPECT_FALSE(ParseTime("2026-11-23T06:25:00Zjunk", &t));
}

TEST(Fs, ErrorsNameThePath) {
  auto fd = OpenFile("/nowhere/at/all", 0);
  ASSERT_FALSE(fd.ok());
  EXPECT_EQ(fd.status().code(), Code::kNotFound);
  EXPECT_NE(fd.status().message().find("/nowhere/at/all"), std::string::npos);
  EXPECT_EQ(ErrnoStatus(ENOSPC, "write", "x").code(), Code::kFull);
}

TEST(Fs, ReplaceFileLeavesOneFile) {
  TemporaryFolder folder;
  ASSERT_TRUE(MakeFolders(folder.path() + "/a/b").ok());
  ASSERT_TRUE(ReplaceFile(folder.path() + "/a/b/f", "one", true).ok());
  ASSERT_TRUE(ReplaceFile(folder.path() + "/a/b/f", "two", false).ok());
  EXPECT_EQ(*ReadFile(folder.path() + "/a/b/f", 100), "two");
  EXPECT_EQ(ListFiles(folder.path() + "/a/b")->size(), 1U);
  EXPECT_EQ(ReadFile(folder.path() + "/a/b/f", 2).status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace replica

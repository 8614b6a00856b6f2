#include "ext/uploader_answers.h"

#include <gtest/gtest.h>

namespace replica {
namespace {

TEST(UploaderAnswers, LinesArriveInPieces) {
  UploaderAnswers answers;
  EXPECT_TRUE(answers.Add("{\"pid\": 7}\n{\"po"));
  EXPECT_TRUE(answers.Next().has_value());
  EXPECT_FALSE(answers.Next().has_value());
  EXPECT_TRUE(answers.Add("ng\": 1}\n{\"detached\": \"2f61\"}\n{\"failed\": \"2f62\", \"error\": \"no\"}\n"));
  EXPECT_TRUE(answers.Next()->pong);
  EXPECT_EQ(answers.Next()->detached, "/a");
  const auto failed = answers.Next();
  EXPECT_EQ(failed->failed, "/b");
  EXPECT_EQ(failed->error, "no");
  EXPECT_FALSE(answers.Next().has_value());
}

// json.value("error", "") threw on another type, which ended the thread that looks after the uploader.
TEST(UploaderAnswers, OtherTypesAreNoAnswer) {
  UploaderAnswers answers;
  EXPECT_TRUE(answers.Add("{\"failed\": \"2f62\", \"error\": 5, \"detached\": [], \"pid\": \"-1\"}\n"));
  const auto answer = answers.Next();
  EXPECT_EQ(answer->failed, "/b");
  EXPECT_EQ(answer->error, "");
  EXPECT_EQ(answer->detached, "");
  EXPECT_TRUE(answers.Add("[]\n1\n\xff\n{\n" + std::string(1000, '[') + "\n\n"));
  EXPECT_FALSE(answers.Next().has_value());
}

TEST(UploaderAnswers, ALineHasABound) {
  UploaderAnswers answers;
  bool accepted = true;
  size_t given = 0;
  for (; accepted && given < 1000000; given += 4096) accepted = answers.Add(std::string(4096, 'x'));
  EXPECT_FALSE(accepted);
  EXPECT_LE(given, UploaderAnswers::kMaxLine + 8192);
}

}  // namespace
}  // namespace replica

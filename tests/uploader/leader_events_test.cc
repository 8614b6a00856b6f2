#include "uploader/leader_events.h"

#include <gtest/gtest.h>

#include "tests/temporary_folder.h"

namespace replica {
namespace {

constexpr int64_t kSecond = 1000000;

class FakeClock : public Clock {
 public:
  int64_t WallMicros() const override { return now; }
  int64_t SteadyMicros() const override { return now; }
  int64_t now = int64_t{1800000000} * kSecond;
};

class LeaderEventsTest : public testing::Test {
 protected:
  // "kind message" of each line.
  std::vector<std::string> Lines() const {
    std::vector<std::string> out;
    for (const Event& e : EventLog::Read(folder_.path())) out.push_back(e.kind + " " + e.message);
    return out;
  }
  // Time passes, and Tick is called when it is due, as the leader does.
  void Pass(LeaderEvents* events, int64_t micros) {
    for (const int64_t end = clock_.now + micros; clock_.now < end;) {
      clock_.now = std::min(end, std::max(clock_.now, events->due()));
      events->Tick();
      ASSERT_GT(events->due(), clock_.now) << "what was due is written";
    }
  }
  using Strings = std::vector<std::string>;

  TemporaryFolder folder_;
  FakeClock clock_;
  const Status busy_{Code::kUnavailable, "busy"};
  const Status refused_{Code::kPermission, "refused"};
};

TEST_F(LeaderEventsTest, AVisitLeavesNoLine) {
  for (int i = 0; i < 100; i++) {
    LeaderEvents events(folder_.path(), clock_);
    events.AddLater("leader", "me");
    events.AddLater("attach", "nothing is missing");
    Pass(&events, 5 * kSecond);
    events.AddLater("handover", "to another");
    events.End();
  }
  EXPECT_EQ(Lines(), Strings{});
}

TEST_F(LeaderEventsTest, WhoStaysOrHasSomethingToTellSaysWhoItIs) {
  LeaderEvents events(folder_.path(), clock_);
  events.AddLater("leader", "me");
  const std::string begun = FormatTime(clock_.now);
  Pass(&events, LeaderEvents::kVisit);
  EXPECT_EQ(Lines(), Strings{"leader me"});
  EXPECT_EQ(EventLog::Read(folder_.path()).front().time, begun);
  LeaderEvents other(folder_.path(), clock_);
  other.AddLater("leader", "other");
  other.Add("resync", "needed");
  EXPECT_EQ(Lines(), (Strings{"leader me", "leader other", "resync needed"}));
}

TEST_F(LeaderEventsTest, AnErrorThatPassesIsCountedOnly) {
  LeaderEvents events(folder_.path(), clock_);
  for (int i = 0; i < 120; i++) {
    events.Error(busy_);
    Pass(&events, kSecond);
    events.Recovered(false);
    Pass(&events, 59 * kSecond);
  }
  const Strings lines = Lines();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_NE(lines[0].find("61 errors since "), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find("busy"), std::string::npos) << lines[0];
}

TEST_F(LeaderEventsTest, AnErrorThatLastsIsToldOnceAndItsEndToo) {
  LeaderEvents events(folder_.path(), clock_);
  events.Error(busy_);
  Pass(&events, LeaderEvents::kLasts - 1);
  EXPECT_EQ(Lines(), Strings{});
  Pass(&events, 1);
  EXPECT_EQ(Lines(), Strings{"error busy"});
  events.Error(Status(Code::kUnavailable, "no answer"));
  Pass(&events, LeaderEvents::kOtherError);
  EXPECT_EQ(Lines(), Strings{"error busy"});
  events.Error(Status(Code::kUnavailable, "another reason"));
  events.Recovered(false);
  EXPECT_EQ(Lines(), (Strings{"error busy", "error another reason", "recovered the store answers again"}));
}

TEST_F(LeaderEventsTest, WhatNeedsAPersonIsToldAtOnce) {
  LeaderEvents events(folder_.path(), clock_);
  for (int i = 0; i < 10; i++) {
    events.Error(refused_);
    events.Error(busy_);
  }
  EXPECT_EQ(Lines(), Strings{"error refused"});
  events.Recovered(false);
  EXPECT_EQ(Lines().size(), 2U);
}

TEST_F(LeaderEventsTest, VisitsDuringAnOutageTellItOnce) {
  for (int i = 0; i < 100; i++) {
    LeaderEvents events(folder_.path(), clock_);
    events.AddLater("leader", "me");
    events.Error(busy_);
    Pass(&events, kSecond);
    events.End();
  }
  EXPECT_EQ(Lines(), (Strings{"leader me", "error busy"}));
  LeaderEvents events(folder_.path(), clock_);
  events.Recovered(true);
  EXPECT_EQ(Lines().back(), "recovered the store answers again");
}

}  // namespace
}  // namespace replica

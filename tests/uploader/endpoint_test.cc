#include "uploader/endpoint.h"

#include <gtest/gtest.h>

namespace replica {
namespace {

constexpr int64_t kSecond = 1000000;
constexpr double kMost = 0.999999;

TEST(EndpointBackoff, EverybodyMaySendWhileItWorks) {
  EndpointBackoff b;
  for (int i = 0; i < 3; i++) EXPECT_TRUE(b.TryBegin(1000));
  EXPECT_EQ(b.next_try(), 0);
  EXPECT_FALSE(b.Answered(1000)) << "there was no outage";
}

TEST(EndpointBackoff, OneProbeAtATime) {
  EndpointBackoff b;
  b.Failed(900, 1000, 0, 0);
  EXPECT_TRUE(b.down());
  EXPECT_EQ(b.down_since(), 1000);
  EXPECT_FALSE(b.TryBegin(1000));
  const int64_t probe = b.next_try();
  EXPECT_EQ(probe, 1000 + EndpointBackoff::kFirstDelay / 2);
  EXPECT_FALSE(b.TryBegin(probe - 1));
  EXPECT_TRUE(b.TryBegin(probe));
  for (int i = 0; i < 10; i++) EXPECT_FALSE(b.TryBegin(probe + i));
  EXPECT_TRUE(b.Answered(probe + 10));
  EXPECT_TRUE(b.TryBegin(probe + 11));
  EXPECT_TRUE(b.TryBegin(probe + 11)) << "all of them";
}

TEST(EndpointBackoff, ProbesAreNeverFurtherApartThanTheBound) {
  for (double jitter : {0.0, 0.5, kMost}) {
    EndpointBackoff b;
    int64_t now = kSecond;
    b.Failed(now, now, 0, jitter);
    int64_t longest = 0;
    int probes = 0;
    for (const int64_t begin = now; now < begin + 600 * kSecond; probes++) {
      const int64_t next = b.next_try();
      EXPECT_GT(next, now);
      longest = std::max(longest, next - now);
      now = next;
      ASSERT_TRUE(b.TryBegin(now));
      b.Failed(now, now, 0, jitter);
    }
    EXPECT_LE(longest, EndpointBackoff::kLongestDelay);
    EXPECT_GE(longest, EndpointBackoff::kLongestDelay / 2);
    EXPECT_LT(probes, 610) << "in ten minutes";
  }
}

TEST(EndpointBackoff, AProbeThatHangsDoesNotKeepTheNextOneBack) {
  EndpointBackoff b;
  b.Failed(0, 1, 0, 0);
  const int64_t probe = b.next_try();
  ASSERT_TRUE(b.TryBegin(probe));
  EXPECT_FALSE(b.TryBegin(probe + EndpointBackoff::kLongestDelay - 1));
  EXPECT_TRUE(b.TryBegin(probe + EndpointBackoff::kLongestDelay));
  EXPECT_FALSE(b.TryBegin(probe + EndpointBackoff::kLongestDelay + 1));
  // The end of the first one says nothing about the second one.
  b.Failed(probe, probe + EndpointBackoff::kLongestDelay + 2, 0, 0);
  EXPECT_FALSE(b.TryBegin(probe + EndpointBackoff::kLongestDelay + 3));
}

TEST(EndpointBackoff, RequestsOfBeforeTheOutageAreOneFailure) {
  EndpointBackoff one;
  EndpointBackoff many;
  one.Failed(0, 1000, 0, kMost);
  many.Failed(0, 1000, 0, kMost);
  for (int i = 0; i < 100; i++) many.Failed(0, 1000 + i, 0, kMost);
  EXPECT_EQ(one.next_try(), many.next_try());
  ASSERT_TRUE(many.TryBegin(many.next_try()));
  many.Failed(0, many.next_try(), 0, kMost);
  EXPECT_FALSE(many.TryBegin(one.next_try() + 1)) << "the probe is still under way";
}

TEST(EndpointBackoff, RetryAfterIsObeyed) {
  for (double jitter : {0.0, kMost}) {
    EndpointBackoff b;
    const int64_t now = kSecond;
    b.Failed(now, now, 10 * kSecond, jitter);
    EXPECT_FALSE(b.TryBegin(now + 10 * kSecond - 1));
    EXPECT_GE(b.next_try(), now + 10 * kSecond);
    EXPECT_LE(b.next_try(), now + 11 * kSecond);
    // An answer to a request of before does not end it, nor does a failure without the header.
    EXPECT_FALSE(b.Answered(now + kSecond));
    b.Failed(now - 1, now + 2 * kSecond, 0, jitter);
    EXPECT_FALSE(b.TryBegin(now + 10 * kSecond - 1));
    EXPECT_TRUE(b.TryBegin(now + 11 * kSecond));
    EXPECT_TRUE(b.Answered(now + 11 * kSecond));
    EXPECT_EQ(b.next_try(), 0);
  }
}

TEST(EndpointBackoff, RetryAfterIsBounded) {
  EndpointBackoff b;
  b.Failed(0, 1, int64_t{365} * 24 * 3600 * kSecond, kMost);
  EXPECT_LE(b.next_try(), EndpointBackoff::kLongestRetry + kSecond + 1);
}

class FakeClock : public Clock {
 public:
  int64_t WallMicros() const override { return now; }
  int64_t SteadyMicros() const override { return now; }
  int64_t now = kSecond;
};

TEST(Endpoint, TheEndOfAnOutageWakesThoseWhoWait) {
  const FakeClock clock;
  auto endpoint = std::make_shared<Endpoint>("x", clock);
  int woken = 0;
  const Endpoint::Waiter first(endpoint, [&] { woken++; });
  {
    const Endpoint::Waiter gone(endpoint, [&] { woken += 100; });
  }
  const Endpoint::Waiter second(endpoint, [&] { woken++; });
  endpoint->Answered();
  EXPECT_EQ(woken, 0);
  endpoint->Failed(clock.now, 0, "why");
  EXPECT_EQ(endpoint->error(), "why");
  EXPECT_EQ(endpoint->failures(), 1U);
  endpoint->Answered();
  EXPECT_EQ(woken, 2);
  endpoint->Answered();
  EXPECT_EQ(woken, 2);
}

TEST(Endpoint, Names) {
  EXPECT_EQ(EndpointTable::NameOfUrl("https://S3.example.com"), "https://s3.example.com:443");
  EXPECT_EQ(EndpointTable::NameOfUrl("https://s3.example.com:443/x"), "https://s3.example.com:443");
  EXPECT_EQ(EndpointTable::NameOfUrl("http://127.0.0.1:9000/"), "http://127.0.0.1:9000");
  EXPECT_EQ(EndpointTable::NameOfUrl("http://[::1]"), "http://[::1]:80");
  EXPECT_EQ(EndpointTable::NameOfUrl("http://[::1]:9000"), "http://[::1]:9000");
  EXPECT_EQ(EndpointTable::NameOfFolder("/backups/app"), "file:///backups");
  EndpointTable table;
  EXPECT_EQ(table.Find("a"), table.Find("a"));
  EXPECT_NE(table.Find("a"), table.Find("b"));
}

}  // namespace
}  // namespace replica

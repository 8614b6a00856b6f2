#include "ext/config.h"

#include <gtest/gtest.h>

#include <map>

namespace replica {
namespace {

Result<Config> Read(std::map<std::string, std::string> environment) {
  return ReadConfig([&](const char* name) -> const char* {
    auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(Config, EmptyEnvironmentIsNotConfiguredAndNotRequired) {
  auto config = Read({});
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->url.empty());
  EXPECT_FALSE(config->required);
}

TEST(Config, LitestreamsNamesWork) {
  auto config = Read({{"LITESTREAM_REPLICA_BUCKET", "b"},
                      {"LITESTREAM_ACCESS_KEY_ID", "id"},
                      {"LITESTREAM_SECRET_ACCESS_KEY", "secret"},
                      {"LITESTREAM_REPLICA_REGION", "eu"},
                      {"LITESTREAM_REPLICA_ENDPOINT", "https://s3.example.com/"}});
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->url, "s3://b");
  EXPECT_TRUE(config->missing.empty());
  EXPECT_EQ(config->options.s3.region, "eu");
  EXPECT_EQ(config->options.s3.endpoint, "https://s3.example.com");
}

TEST(Config, OwnNamesComeFirstAndAwsNamesLast) {
  auto config = Read({{"REPLICA_URL", "s3://b/p"},
                      {"REPLICA_REGION", "one"},
                      {"LITESTREAM_REPLICA_REGION", "two"},
                      {"AWS_REGION", "three"},
                      {"LITESTREAM_ACCESS_KEY_ID", "l"},
                      {"AWS_ACCESS_KEY_ID", "a"},
                      {"AWS_SECRET_ACCESS_KEY", "s"},
                      {"AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"}});
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->options.s3.region, "one");
  EXPECT_EQ(config->options.s3.access_key_id, "l");
  EXPECT_EQ(config->options.s3.secret_access_key, "s");
  EXPECT_EQ(config->options.s3.endpoint, "http://127.0.0.1:9000");
}

TEST(Config, ProductionRequiresAReplicaAndNamesWhatIsMissing) {
  for (const char* name : {"RAILS_ENV", "RACK_ENV", "NODE_ENV", "APP_ENV"}) {
    auto config = Read({{name, "production"}});
    ASSERT_TRUE(config.ok());
    EXPECT_TRUE(config->required) << name;
    const std::string message = MissingMessage(*config);
    EXPECT_NE(message.find(name), std::string::npos) << "why it is required";
    for (const char* setting :
         {"LITESTREAM_REPLICA_BUCKET", "LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY"})
      EXPECT_NE(message.find(setting), std::string::npos) << setting;
  }
  EXPECT_FALSE(Read({{"RAILS_ENV", "production"}, {"REPLICA_REQUIRED", "0"}})->required);
  EXPECT_TRUE(Read({{"REPLICA_REQUIRED", "1"}})->required);
  EXPECT_TRUE(Read({{"RAILS_ENV", "production"}, {"REPLICA_URL", "file:///b"}})->missing.empty());
}

TEST(Config, WrongValuesAreNamed) {
  EXPECT_NE(Read({{"REPLICA_SYNC_INTERVAL", "fast"}}).status().message().find("REPLICA_SYNC_INTERVAL"),
            std::string::npos);
  EXPECT_NE(Read({{"REPLICA_URL", "ftp://x"}}).status().message().find("ftp://x"), std::string::npos);
  EXPECT_NE(Read({{"REPLICA_ENDPOINT", "s3.example.com"}}).status().message().find("REPLICA_ENDPOINT"),
            std::string::npos);
  EXPECT_FALSE(Read({{"REPLICA_SPOOL_LIMIT", "-5"}}).ok());
  EXPECT_FALSE(Read({{"REPLICA_REQUIRED", "perhaps"}}).ok());
  EXPECT_NE(Read({{"REPLICA_CA_FILE", "/no/such.pem"}}).status().message().find("/no/such.pem"), std::string::npos);
  EXPECT_NE(Read({{"REPLICA_DATABASES", "/a/b.db:data/*.db"}}).status().message().find("data/*.db"), std::string::npos);
}

TEST(Config, DatabasesNarrowByPathOrName) {
  auto config = Read({{"REPLICA_URL", "file:///b"}, {"REPLICA_DATABASES", "/data/*.sqlite3:cache.db"}});
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(Covers(*config, "/data/production.sqlite3"));
  EXPECT_TRUE(Covers(*config, "/tmp/x/cache.db"));
  EXPECT_FALSE(Covers(*config, "/data/deep/er.sqlite3"));
  EXPECT_FALSE(Covers(*config, "/data/other.db"));
}

TEST(Config, JsonOptionsAreChecked) {
  AttachOptions options;
  EXPECT_TRUE(ApplyJson(R"({"region":"eu","sync":"commit","sync_interval_ms":5,"takeover":true})", &options).ok());
  EXPECT_EQ(options.s3.region, "eu");
  EXPECT_TRUE(options.wait_for_commit);
  EXPECT_EQ(options.engine.sync_interval, 5000);
  Status unknown = ApplyJson(R"({"regoin":"eu"})", &options);
  EXPECT_EQ(unknown.code(), Code::kInvalidArgument);
  EXPECT_NE(unknown.message().find("regoin"), std::string::npos);
  EXPECT_FALSE(ApplyJson("[]", &options).ok());
  EXPECT_FALSE(ApplyJson(R"({"takeover":"yes"})", &options).ok());
  EXPECT_FALSE(ApplyJson(R"({"sync_interval_ms":-1})", &options).ok());
}

TEST(Config, UrlsAreParsedStrictly) {
  EXPECT_EQ(ParseUrl("s3://b/p/q/")->prefix, "p/q");
  EXPECT_EQ(ParseUrl("file:///var/x/")->folder, "/var/x");
  for (const char* bad :
       {"", "s3://", "s3:///p", "file://relative", "/var/x", "s3://b ucket/p", "http://x", "file:///", "file:////"})
    EXPECT_FALSE(ParseUrl(bad).ok()) << bad;
}

}  // namespace
}  // namespace replica

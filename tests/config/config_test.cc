#include "config/config.h"

#include <gtest/gtest.h>

#include "config/parse.h"

namespace replica {
namespace {

Result<Config> Read(Environment environment) {
  environment["REPLICA_CONFIG"] = "off";
  return ReadConfig(environment);
}

TEST(Config, EmptyEnvironmentIsNotConfiguredAndNotRequired) {
  auto config = Read({});
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->rules.empty());
  EXPECT_FALSE(config->required);
}

TEST(Config, LitestreamsNamesWork) {
  auto config = Read({{"LITESTREAM_REPLICA_BUCKET", "b"},
                      {"LITESTREAM_ACCESS_KEY_ID", "id"},
                      {"LITESTREAM_SECRET_ACCESS_KEY", "secret"},
                      {"LITESTREAM_REPLICA_REGION", "eu"},
                      {"LITESTREAM_REPLICA_ENDPOINT", "https://s3.example.com/"}});
  ASSERT_TRUE(config.ok());
  ASSERT_EQ(config->rules.size(), 1U);
  EXPECT_EQ(config->rules[0].UrlOf("/data/app.db"), "s3://b/app.db");
  EXPECT_TRUE(config->missing.empty());
  EXPECT_EQ(config->options.s3.region, "eu");
  EXPECT_EQ(config->options.s3.endpoint, "https://s3.example.com");
}

// A newline ended the headers of a request, and the signature was not among them.
TEST(Config, Regression_CredentialsAreOneLine) {
  auto read = [](const std::string& token) {
    return Read({{"REPLICA_URL", "s3://b/p"},
                 {"REPLICA_ACCESS_KEY_ID", "a\n"},
                 {"REPLICA_SECRET_ACCESS_KEY", "s\r\n"},
                 {"REPLICA_SESSION_TOKEN", token}});
  };
  auto config = read("t\n");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->options.s3.access_key_id, "a");
  EXPECT_EQ(config->options.s3.secret_access_key, "s");
  EXPECT_EQ(config->options.s3.session_token, "t");
  auto two_lines = read("t\r\nx: y");
  ASSERT_FALSE(two_lines.ok());
  EXPECT_NE(two_lines.status().message().find("REPLICA_SESSION_TOKEN"), std::string::npos);
  EXPECT_EQ(two_lines.status().message().find("x: y"), std::string::npos);
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
  EXPECT_EQ(config->options.s3.access_key_id, "a") << "a key without its secret is of no use";
  EXPECT_EQ(config->options.s3.secret_access_key, "s");
  EXPECT_EQ(config->options.s3.endpoint, "http://127.0.0.1:9000");
}

// A token of the environment was sent with keys that it does not belong to: S3 refuses such a pair.
TEST(Config, Regression_HalvesOfTwoPairsAreNoPair) {
  auto config = Read({{"REPLICA_URL", "s3://b/p"}, {"REPLICA_ACCESS_KEY_ID", "r"}, {"AWS_SECRET_ACCESS_KEY", "a"}});
  ASSERT_TRUE(config.ok());
  ASSERT_EQ(config->missing.size(), 1U);
  EXPECT_NE(config->missing[0].find("SECRET_ACCESS_KEY"), std::string::npos);
}

TEST(Config, Regression_ATokenStaysWithItsKeys) {
  Environment environment = {{"REPLICA_URL", "s3://b/p"},
                             {"AWS_ACCESS_KEY_ID", "a"},
                             {"AWS_SECRET_ACCESS_KEY", "as"},
                             {"AWS_SESSION_TOKEN", "token"}};
  EXPECT_EQ(Read(environment)->options.s3.session_token, "token");
  environment["LITESTREAM_ACCESS_KEY_ID"] = "l";
  environment["LITESTREAM_SECRET_ACCESS_KEY"] = "ls";
  auto config = Read(environment);
  EXPECT_EQ(config->options.s3.access_key_id, "l");
  EXPECT_EQ(config->options.s3.secret_access_key, "ls");
  EXPECT_EQ(config->options.s3.session_token, "");
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
  EXPECT_NE(Read({{"REPLICA_ENDPOINT", "ftp://s3.example.com"}}).status().message().find("REPLICA_ENDPOINT"),
            std::string::npos);
  EXPECT_FALSE(Read({{"REPLICA_SPOOL_LIMIT", "-5"}}).ok());
  EXPECT_FALSE(Read({{"REPLICA_REQUIRED", "perhaps"}}).ok());
  EXPECT_NE(Read({{"REPLICA_CA_FILE", "/no/such.pem"}}).status().message().find("/no/such.pem"), std::string::npos);
  EXPECT_NE(Read({{"REPLICA_DATABASES", "/a/b.db:data/*.db"}}).status().message().find("data/*.db"), std::string::npos);
}

TEST(Config, DatabasesNarrowByPathOrName) {
  auto config = Read({{"REPLICA_URL", "file:///b"}, {"REPLICA_DATABASES", "/data/*.sqlite3:cache.db"}});
  ASSERT_TRUE(config.ok());
  EXPECT_NE(config->FindRule("/data/production.sqlite3"), nullptr);
  EXPECT_NE(config->FindRule("/tmp/x/cache.db"), nullptr);
  EXPECT_EQ(config->FindRule("/data/deep/er.sqlite3"), nullptr);
  EXPECT_EQ(config->FindRule("/data/other.db"), nullptr);
}

TEST(Config, UnknownNamesAreTold) {
  auto config = Read({{"REPLICA_URLL", "file:///b"}});
  ASSERT_TRUE(config.ok());
  ASSERT_EQ(config->warnings.size(), 1U);
  EXPECT_NE(config->warnings[0].find("REPLICA_URLL"), std::string::npos);
}

TEST(Config, DurationsAndSizes) {
  int64_t micros = 0;
  EXPECT_TRUE(ParseDuration("1h30m", &micros).ok());
  EXPECT_EQ(micros, INT64_C(5400000000));
  EXPECT_TRUE(ParseDuration("1.5s", &micros).ok());
  EXPECT_EQ(micros, 1500000);
  EXPECT_TRUE(ParseDuration("0", &micros).ok());
  EXPECT_EQ(micros, 0);
  for (const char* bad : {"", "s", "-1s", "1h30", "5 m", "1d", "inf", "nan", "1e9h", "0x10"})
    EXPECT_FALSE(ParseDuration(bad, &micros).ok()) << bad;
  uint64_t bytes = 0;
  EXPECT_TRUE(ParseBytes("3MiB", &bytes).ok());
  EXPECT_EQ(bytes, UINT64_C(3) << 20);
  for (const char* bad : {"", "-1", "3MB", "99999999999GiB", " 1"}) EXPECT_FALSE(ParseBytes(bad, &bytes).ok()) << bad;
}

TEST(Config, OptionsSurviveJson) {
  AttachOptions options;
  ASSERT_TRUE(ApplyJson(R"({"region":"eu","sync":"commit","sync_interval_ms":5,"guard":true,"path_style":false,
                            "access_key_id":"a","secret_access_key":"s\"$","spool_limit_bytes":7})",
                        &options)
                  .ok());
  AttachOptions copy;
  ASSERT_TRUE(ApplyJson(OptionsAsJson(options), &copy).ok());
  EXPECT_EQ(OptionsAsJson(copy), OptionsAsJson(options));
  EXPECT_EQ(copy.s3.secret_access_key, options.s3.secret_access_key);
  EXPECT_FALSE(copy.s3.path_style);
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
  for (const char* bad : {"", "s3://", "s3:///p", "file://relative", "/var/x", "s3://b ucket/p", "http://x", "file:///",
                          "file:////", "s3://b.s3.eu-west-1.amazonaws.com/p", "s3://b/p?region=eu"})
    EXPECT_FALSE(ParseUrl(bad).ok()) << bad;
}

}  // namespace
}  // namespace replica

#include "config/config_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/temporary_folder.h"

namespace replica {
namespace {

class ConfigFileTest : public ::testing::Test {
 protected:
  Result<Config> Read(const std::string& text, Environment environment = {}) {
    path_ = folder_.path() + "/replica.yml";
    std::ofstream(path_) << text;
    ::chmod(path_.c_str(), 0600);
    environment["REPLICA_CONFIG"] = path_;
    return ReadConfig(environment);
  }
  // The message of a file that must be refused, without the file's path: "3: there is …".
  std::string Refusal(const std::string& text) {
    auto config = Read(text);
    EXPECT_EQ(config.status().code(), Code::kInvalidArgument) << text;
    const std::string message = config.status().message();
    EXPECT_EQ(message.rfind(path_ + ":", 0), 0U) << message;
    return message.substr(std::min(message.size(), path_.size() + 1));
  }
  static std::string All(const std::vector<std::string>& texts) { return Join(texts, "\n"); }

  TemporaryFolder folder_;
  std::string path_;
};

TEST_F(ConfigFileTest, ALitestreamFileWorksAsItIs) {
  auto config = Read(R"(
access-key-id: ${LITESTREAM_ACCESS_KEY_ID}
secret-access-key: $LITESTREAM_SECRET_ACCESS_KEY
dbs:
  - path: /data/production.sqlite3
    replicas:
      - type: s3
        bucket: ${LITESTREAM_REPLICA_BUCKET}
        path: production
        region: eu-central-1
        endpoint: https://minio.example.com:9000
        force-path-style: true
        sync-interval: 500ms
        retention: 72h
        snapshot-interval: 12h
  - path: /data/queue.sqlite3
    monitor-interval: 1s
    replicas:
      - url: s3://other/queue
        access-key-id: own
        secret-access-key: hers
  - dir: /srv/tenants
    pattern: "*.db"
    recursive: true
    replica:
      type: file
      path: /backup/tenants
)",
                     {{"LITESTREAM_ACCESS_KEY_ID", "id"},
                      {"LITESTREAM_SECRET_ACCESS_KEY", "secret$x"},
                      {"LITESTREAM_REPLICA_BUCKET", "bucket"}});
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(config->missing.empty()) << All(config->missing);
  ASSERT_EQ(config->rules.size(), 3U);
  const DatabaseRule& first = config->rules[0];
  EXPECT_EQ(first.UrlOf("/data/production.sqlite3"), "s3://bucket/production");
  EXPECT_EQ(first.options.s3.region, "eu-central-1");
  EXPECT_EQ(first.options.s3.endpoint, "https://minio.example.com:9000");
  EXPECT_TRUE(first.options.s3.path_style);
  EXPECT_EQ(first.options.s3.access_key_id, "id");
  EXPECT_EQ(first.options.s3.secret_access_key, "secret$x") << "a variable's text is not expanded again";
  EXPECT_EQ(first.options.engine.sync_interval, 500000);
  EXPECT_EQ(first.options.engine.snapshot_interval, INT64_C(12) * 3600 * 1000000);
  EXPECT_EQ(first.values.at("region").source, path_ + ":10");
  EXPECT_EQ(config->rules[1].options.s3.access_key_id, "own");
  EXPECT_EQ(config->rules[1].options.s3.region, "") << "one entry's settings are not another's";
  const DatabaseRule* tenant = config->FindRule("/srv/tenants/eu/acme.db");
  ASSERT_NE(tenant, nullptr);
  EXPECT_EQ(tenant->UrlOf("/srv/tenants/eu/acme.db"), "file:///backup/tenants/eu/acme.db");
  EXPECT_EQ(config->FindRule("/srv/tenants/eu/acme.txt"), nullptr);
  EXPECT_EQ(config->FindRule("/srv/tenants2/acme.db"), nullptr);
  EXPECT_EQ(config->FindRule("/elsewhere.db"), nullptr) << "a file that lists databases means these only";
  const std::string warnings = All(config->warnings);
  EXPECT_NE(warnings.find(path_ + ":14: retention is not supported"), std::string::npos) << warnings;
  EXPECT_NE(warnings.find(path_ + ":17: monitor-interval is not needed"), std::string::npos) << warnings;
}

TEST_F(ConfigFileTest, TheMostSpecificCounts) {
  const Environment environment = {{"REPLICA_REGION", "of-environment"}, {"REPLICA_SYNC_INTERVAL", "9s"}};
  auto config =
      Read("url: file:///base\nregion: of-file\ndbs:\n  - path: /a.db\n    region: of-entry\n  - path: /b.db\n",
           environment);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rules[0].options.s3.region, "of-entry");
  EXPECT_EQ(config->rules[1].options.s3.region, "of-file");
  EXPECT_EQ(config->rules[1].options.engine.sync_interval, 9000000);
  EXPECT_EQ(config->rules[1].values.at("sync-interval").source, "REPLICA_SYNC_INTERVAL");
  EXPECT_EQ(config->rules[1].UrlOf("/b.db"), "file:///base/b.db");
}

TEST_F(ConfigFileTest, VariablesWithoutValueAreMissingByNameAndPlace) {
  const std::string text =
      "dbs:\n  - path: /a.db\n    replica:\n      type: s3\n      bucket: ${BUCKET}\n      region: ${AREA}\n";
  auto config = Read(text, {{"RAILS_ENV", "production"}});
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(config->required);
  const std::string message = MissingMessage(*config);
  EXPECT_NE(message.find("BUCKET (" + path_ + ":5: bucket)"), std::string::npos) << message;
  EXPECT_NE(All(config->warnings).find("AREA"), std::string::npos) << "optional: told, and the default counts";
  EXPECT_EQ(config->rules[0].options.s3.region, "");
  auto keys = Read(text, {{"BUCKET", "b"}});
  ASSERT_TRUE(keys.ok());
  EXPECT_NE(All(keys->missing).find("LITESTREAM_SECRET_ACCESS_KEY"), std::string::npos);
}

TEST_F(ConfigFileTest, WhatIsWrongIsNamedByLine) {
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    regoin: eu\n").find("3: there is no setting \"regoin\""),
            std::string::npos);
  EXPECT_NE(Refusal("regoin: eu\n").find("1: there is no setting"), std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - path: [/a.db]\n").find("2: path: give one value"), std::string::npos);
  EXPECT_NE(Refusal("dbs: /a.db\n").find("1: dbs: give a list"), std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - /a.db\n").find("2: dbs: give a map"), std::string::npos);
  EXPECT_NE(Refusal("sync-interval: soon\n").find("1: sync-interval: \"soon\" is no duration"), std::string::npos);
  EXPECT_NE(Refusal("region: a\nregion: b\n").find("2: region is given twice"), std::string::npos);
  EXPECT_NE(Refusal("dbs: [1, 2\n").find("this is not valid YAML"), std::string::npos);
  EXPECT_NE(
      Refusal("dbs:\n  - path: /a.db\n    replicas:\n      - type: sftp\n        path: x\n").find("4: type: \"sftp\""),
      std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    replicas:\n      - url: s3://b/a\n      - url: s3://c/a\n")
                .find("5: a database has one replica"),
            std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    replica:\n      url: s3://b/a\n      age:\n        identities: [x]\n")
                .find("5: age: encrypted"),
            std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    required: true\n").find("top level"), std::string::npos);
  EXPECT_NE(Refusal("bucket: ${X\n").find("1: bucket: \"${\""), std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - dir: /a\n").find("2: dir: give a \"pattern:\""), std::string::npos);
  EXPECT_NE(
      Refusal("url: file:///b\ndbs:\n  - path: /a.db\n  - path: /x/../a.db\n").find("4: /a.db is configured already"),
      std::string::npos);
  EXPECT_NE(Refusal("dashboard:\n  port: 80\n").find("2: there is no setting \"port\""), std::string::npos);
}

TEST_F(ConfigFileTest, HostFormsOfProviders) {
  struct Case {
    const char* url;
    const char* bucket_url;
    const char* endpoint;
    const char* region;
  };
  for (const Case& c :
       {Case{"s3://app.s3.eu-west-2.scw.cloud/db", "s3://app/db", "https://s3.eu-west-2.scw.cloud", "eu-west-2"},
        Case{"s3://my.app.fra1.digitaloceanspaces.com/x/y", "s3://my.app/x/y", "https://fra1.digitaloceanspaces.com",
             "fra1"},
        Case{"s3://app.localhost:9000/db", "s3://app/db", "http://localhost:9000", "us-east-1"},
        Case{"s3://app.s3.filebase.com/db", "s3://app/db", "https://s3.filebase.com", "us-east-1"}}) {
    auto config = Read("dbs:\n  - path: sqlite:///a.db\n    replica:\n      url: " + std::string(c.url) + "\n");
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ(config->rules[0].UrlOf("/a.db"), c.bucket_url);
    EXPECT_EQ(config->rules[0].options.s3.endpoint, c.endpoint);
    EXPECT_EQ(config->rules[0].options.s3.region, c.region);
    EXPECT_EQ(config->rules[0].path, "/a.db");
  }
}

TEST_F(ConfigFileTest, WhatIsSwitchedOffIsNotRefused) {
  auto config = Read(
      "addr: 127.0.0.1:9090\nsocket:\n  enabled: false\nvalidation:\n  interval: 1h\ndbs:\n  - path: /a.db\n"
      "    replica:\n      url: file:///b/a\n      skip-verify: false\n      sse-kms-key-id:\n"
      "      age:\n        identities: []\n        recipients:\n");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->Get("metrics-listen"), "127.0.0.1:9090");
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    replica:\n      url: file:///b/a\n      age:\n        identities: []\n"
                    "        recipients: [age1x]\n")
                .find("5: age: encrypted"),
            std::string::npos);
}

TEST_F(ConfigFileTest, ADatabaseHasSnapshotSettingsOfItsOwn) {
  auto config = Read(
      "snapshot:\n  interval: 6h\ndbs:\n  - path: /a.db\n    snapshot:\n      interval: 2h\n      retention: 72h\n"
      "    url: file:///b/a\n  - path: /b.db\n    snapshot:\n    url: file:///b/b\n");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rules[0].options.engine.snapshot_interval, INT64_C(2) * 3600 * 1000000);
  EXPECT_EQ(config->rules[1].options.engine.snapshot_interval, INT64_C(6) * 3600 * 1000000);
  EXPECT_NE(All(config->warnings).find(path_ + ":7: retention is not supported"), std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - path: /a.db\n    snapshot:\n      often: 1h\n").find("4: there is no setting \"often\""),
            std::string::npos);
}

TEST_F(ConfigFileTest, PidIsTheProcess) {
  auto config = Read("dbs:\n  - path: /a.db\n    replica:\n      type: file\n      path: /backup/$PID/${PID}\n",
                     {{"PID", "of-environment"}});
  ASSERT_TRUE(config.ok()) << config.status().message();
  const std::string pid = std::to_string(::getpid());
  EXPECT_EQ(config->rules[0].url, "file:///backup/" + pid + "/" + pid);
}

TEST_F(ConfigFileTest, WhereStateLiesIsNotSupportedAndTold) {
  auto config = Read("dbs:\n  - path: /a.db\n    meta-path: /state/a\n    url: file:///b/a\n");
  ASSERT_TRUE(config.ok());
  EXPECT_NE(All(config->warnings).find(path_ + ":3: meta-path is not supported: state lies in"), std::string::npos);
}

TEST_F(ConfigFileTest, OtherStoresAreRefusedByName) {
  const std::string replica = "dbs:\n  - path: /a.db\n    replica:\n      ";
  EXPECT_NE(Refusal(replica + "webdav-url: https://x\n").find("4: webdav-url: WebDAV is not supported"),
            std::string::npos);
  EXPECT_NE(Refusal(replica + "sas-token: x\n").find("4: sas-token: Azure is not supported"), std::string::npos);
  EXPECT_NE(Refusal(replica + "host-key: x\n").find("4: host-key: SFTP is not supported"), std::string::npos);
  EXPECT_NE(Refusal("sse-kms-key-id: x\n").find("1: sse-kms-key-id: set the bucket's"), std::string::npos);
  EXPECT_NE(Refusal(replica + "url: gs://b/a\n").find("Google Cloud Storage is not supported"), std::string::npos);
  EXPECT_NE(Refusal(replica + "url: oss://b/a\n").find("Alibaba's store is not supported"), std::string::npos);
  EXPECT_NE(Refusal(replica + "url: s3://arn:aws:s3:eu-west-1:1:accesspoint/x/a\n").find("access points"),
            std::string::npos);
}

TEST_F(ConfigFileTest, AFolderWantsNoKeys) {
  auto config = Read("dbs:\n  - path: /a.db\n    replica:\n      type: file\n      path: ${NO_SUCH}\n");
  ASSERT_TRUE(config.ok());
  ASSERT_EQ(config->missing.size(), 1U) << All(config->missing);
  EXPECT_NE(config->missing[0].find("NO_SUCH"), std::string::npos);
}

TEST_F(ConfigFileTest, DollarsAndSections) {
  auto config = Read(
      "url: file:///b\nsnapshot:\n  interval: 6h\nprefix: a$$b\ndashboard:\n  listen: 127.0.0.1:9\nrestore: auto\n");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->options.engine.snapshot_interval, INT64_C(6) * 3600 * 1000000);
  EXPECT_EQ(config->Get("prefix"), "a$b");
  EXPECT_EQ(config->Get("dashboard.listen"), "127.0.0.1:9");
  EXPECT_TRUE(config->options.restore_missing);
}

TEST_F(ConfigFileTest, SecretsInFilesThatOthersReadAreTold) {
  const std::string text = "url: s3://b\naccess-key-id: a\nsecret-access-key: topsecret\n";
  ASSERT_TRUE(Read(text).ok());
  EXPECT_TRUE(Read(text)->warnings.empty());
  ::chmod(path_.c_str(), 0644);
  auto config = ReadConfig({{"REPLICA_CONFIG", path_}});
  ASSERT_TRUE(config.ok());
  EXPECT_NE(All(config->warnings).find("chmod o-r"), std::string::npos);
  EXPECT_EQ(All(config->warnings).find("topsecret"), std::string::npos);
  ::chmod(path_.c_str(), 0666);
  EXPECT_NE(ReadConfig({{"REPLICA_CONFIG", path_}}).status().message().find("chmod o-w"), std::string::npos);
}

TEST_F(ConfigFileTest, AFileThatIsNamedMustBeThere) {
  auto config = ReadConfig({{"LITESTREAM_CONFIG", folder_.path() + "/no.yml"}});
  EXPECT_EQ(config.status().code(), Code::kInvalidArgument);
  EXPECT_NE(config.status().message().find("/no.yml"), std::string::npos);
  EXPECT_TRUE(ReadConfig({{"REPLICA_CONFIG", "off"}, {"LITESTREAM_CONFIG", folder_.path() + "/no.yml"}}).ok());
}

// A file in the working folder was obeyed whoever owned it, and could name a program to run.
TEST_F(ConfigFileTest, Regression_AFileThatWasFoundMustBeOurs) {
  ASSERT_TRUE(Read("url: file:///b\n").ok());
  EXPECT_TRUE(ReadConfigFile({path_, false}, {}).ok());
  ::chmod(path_.c_str(), 0620);
  if (::chown(path_.c_str(), ::geteuid(), ::getegid() + 1) == 0) {
    EXPECT_NE(ReadConfigFile({path_, false}, {}).status().message().find("REPLICA_CONFIG"), std::string::npos);
    EXPECT_TRUE(ReadConfigFile({path_, true}, {}).ok()) << "it was named";
  }
  ::chmod(path_.c_str(), 0600);
  if (::chown(path_.c_str(), ::geteuid() + 1, ::getegid()) == 0) {
    EXPECT_FALSE(ReadConfigFile({path_, false}, {}).ok());
    EXPECT_TRUE(ReadConfigFile({path_, true}, {}).ok());
  }
}

TEST_F(ConfigFileTest, WhateverCannotBeReadIsTheInputsFault) {
  for (const char* path : {"/no/such/file.yml", "/"})
    EXPECT_EQ(ReadConfig({{"REPLICA_CONFIG", path}}).status().code(), Code::kInvalidArgument) << path;
  EXPECT_EQ(Read(std::string(5 << 20, '#')).status().code(), Code::kInvalidArgument);
}

// A pipe has no size: it was taken for an empty file.
TEST_F(ConfigFileTest, Regression_APipeIsReadToItsEnd) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::string text = "bogus: 1\n";
  ASSERT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ::close(ends[1]);
  auto config = ReadConfig({{"REPLICA_CONFIG", "/proc/self/fd/" + std::to_string(ends[0])}});
  EXPECT_NE(config.status().message().find("bogus"), std::string::npos) << config.status().message();
  ::close(ends[0]);
}

TEST_F(ConfigFileTest, ContradictionsAreErrors) {
  EXPECT_EQ(Refusal("url: file:///a\nbucket: b\n").rfind("2: give either", 0), 0U);
  EXPECT_EQ(Refusal("dbs:\n  - path: /a.db\n    url: file:///x\n    replica:\n      path: /y\n").rfind("2: give", 0),
            0U);
  EXPECT_EQ(Refusal("url: file:///a\n---\nurl: file:///b\n").rfind("2: a second document", 0), 0U);
  EXPECT_EQ(Refusal("dbs:\n  - path: /a.db\n    url: file:///x\n  - path: /b.db\n    url: file:///x\n")
                .rfind("4: file:///x is the replica", 0),
            0U);
  EXPECT_EQ(Refusal("dbs:\n  - path: /x/a.db\n  - path: /y/a.db\nurl: file:///x\n").rfind("3: file:///x/a.db", 0), 0U);
  EXPECT_NE(Refusal("snapshot:\n  interval: 0\n").find("at least 1ms"), std::string::npos);
  EXPECT_NE(Refusal("dashboard:\n  listen: nonsense\n").find("no address"), std::string::npos);
  EXPECT_NE(Refusal("metrics-listen: banana\n").find("no address"), std::string::npos);
  EXPECT_NE(Refusal("dashboard:\n  max-lag: soon\n").find("no duration"), std::string::npos);
  EXPECT_NE(Refusal("dashboard:\n  public-url: ftp://x\n").find("no endpoint"), std::string::npos);
  EXPECT_NE(Refusal("url: \"file:///a\\0b\"\n").find("control character"), std::string::npos);
  EXPECT_NE(
      Refusal("dbs:\n  - path: /a\n    replica:\n      url: s3://" + std::string(300000, 'a') + "\n").find("too long"),
      std::string::npos);
  EXPECT_NE(Refusal("a: &a\n  <<: *a\n").find("no setting"), std::string::npos);
  EXPECT_NE(Refusal("dbs:\n  - &a\n    <<: *a\n    path: /a\n").find("<<"), std::string::npos);
}

// A list of none meant all of them.
TEST_F(ConfigFileTest, Regression_AListOfNoDatabasesMeansNone) {
  auto config = Read("url: file:///b\ndbs: []\n");
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->rules.empty());
  EXPECT_NE(All(config->missing).find("dbs lists none"), std::string::npos);
}

TEST_F(ConfigFileTest, SettingsInTheQueryOfAUrl) {
  auto config = Read(R"(
access-key-id: k
secret-access-key: s
dbs:
  - path: /data/a.db
    replica:
      url: s3://bucket/a?endpoint=http://127.0.0.1:9000&forcePathStyle=true&region=eu
  - path: /data/b.db
    replica: {url: "s3://bucket/b?endpoint=minio.example.com:9000&region=eu", region: given}
)");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rules[0].url, "s3://bucket/a");
  EXPECT_EQ(config->rules[0].options.s3.endpoint, "http://127.0.0.1:9000");
  EXPECT_EQ(config->rules[0].options.s3.region, "eu");
  EXPECT_TRUE(config->rules[0].options.s3.path_style);
  EXPECT_EQ(config->rules[1].options.s3.endpoint, "https://minio.example.com:9000");
  EXPECT_EQ(config->rules[1].options.s3.region, "given");
  auto refusal = [&](const std::string& query) {
    return Refusal("dbs:\n  - path: /a\n    replica:\n      url: s3://b/a?" + query + "\n");
  };
  EXPECT_NE(refusal("skipVerify=true").find("4: url: \"skipVerify\" in the query: TLS is always"), std::string::npos);
  EXPECT_NE(refusal("sse-kms-key-id=k").find("set the bucket's"), std::string::npos);
  EXPECT_NE(refusal("regoin=eu").find("\"regoin\" in the query is not supported"), std::string::npos);
  EXPECT_NE(refusal("path=x").find("leave it out"), std::string::npos);
}

// What is a warning in the file is one in the query, in both spellings.
TEST_F(ConfigFileTest, WhatIsNotNeededInTheQueryOfAUrl) {
  auto config = Read(
      "access-key-id: k\nsecret-access-key: s\ndbs:\n  - path: /a.db\n    replica:\n"
      "      url: s3://b/a?concurrency=5&partSize=5MB&part-size=5MB&requireContentMD5=false&require-content-md5=true"
      "&sign-payload=true&storage-class=STANDARD_IA&skip-verify=false&force-path-style=true&region=eu\n");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rules[0].url, "s3://b/a");
  EXPECT_EQ(config->rules[0].options.s3.region, "eu");
  EXPECT_TRUE(config->rules[0].options.s3.path_style);
  const std::string warnings = All(config->warnings);
  for (const char* text :
       {"\"concurrency\" in the query is not needed", "\"partSize\" in the query is not needed",
        "\"part-size\" in the query is not needed", "\"requireContentMD5\" in the query is not needed",
        "\"require-content-md5\" in", "\"storage-class\" in the query is not supported"})
    EXPECT_NE(warnings.find(path_ + ":6: url: " + text), std::string::npos) << text << "\n" << warnings;
}

TEST_F(ConfigFileTest, EndpointsAsLitestreamReadsThem) {
  auto endpoint = [&](const std::string& text) {
    auto config = Read("access-key-id: k\nsecret-access-key: s\ndbs:\n  - path: /a.db\n    url: s3://b/a\n" + text);
    EXPECT_TRUE(config.ok()) << config.status().message();
    return config.ok() ? config->rules[0].options.s3.endpoint : "";
  };
  EXPECT_EQ(endpoint("    endpoint: localhost:9000\n"), "http://localhost:9000");
  EXPECT_EQ(endpoint("    endpoint: 192.168.1.5:9000\n"), "http://192.168.1.5:9000");
  EXPECT_EQ(endpoint("    endpoint: 172.32.0.1:9000\n"), "https://172.32.0.1:9000");
  EXPECT_EQ(endpoint("    endpoint: s3.example.com\n"), "https://s3.example.com");
  auto query = Read(
      "access-key-id: k\nsecret-access-key: s\ndbs:\n  - path: /a.db\n    replica:\n"
      "      url: s3://b/a?endpoint=https%3A%2F%2Fminio.local%3A9000\n");
  ASSERT_TRUE(query.ok()) << query.status().message();
  EXPECT_EQ(query->rules[0].options.s3.endpoint, "https://minio.local:9000");
}

TEST_F(ConfigFileTest, APathSaysMoreThanAPattern) {
  auto config = Read(
      "dbs:\n  - {dir: /srv, pattern: \"*.db\", url: \"file:///r/all\"}\n"
      "  - {path: /srv/a.db, url: \"file:///r/a\", sync: commit}\n");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->FindRule("/srv/a.db")->url, "file:///r/a");
  EXPECT_EQ(config->FindRule("/srv/b.db")->url, "file:///r/all");
}

TEST_F(ConfigFileTest, WhatDoesNothingIsTold) {
  auto config = Read(
      "databases: x.db\nprefix: p\nregion: \"\"\ndbs:\n"
      "  - {dir: /does/not/exist, pattern: \"*.db\", url: \"file:///r\"}\n");
  ASSERT_TRUE(config.ok());
  const std::string warnings = All(config->warnings);
  for (const char* text : {":1: databases does nothing beside dbs", ":2: prefix does nothing without a bucket",
                           ":3: region is empty", "there is no folder /does/not/exist"})
    EXPECT_NE(warnings.find(text), std::string::npos) << text << "\n" << warnings;
  EXPECT_EQ(Read("x-d: &d {url: \"file:///r\", bucket: b}\n<<: *d\n").status().code(), Code::kInvalidArgument);
}

TEST_F(ConfigFileTest, NoSecretInARefusedUrl) {
  auto config = ReadConfig({{"REPLICA_CONFIG", "off"}, {"REPLICA_URL", "s3://b/app?secret-access-key=SEKRET"}});
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().message().find("SEKRET"), std::string::npos) << config.status().message();
}

TEST_F(ConfigFileTest, WhatLitestreamFilesHold) {
  ::setenv("HOME", "/home/someone", 1);
  auto config = Read(R"(
x-defaults: &defaults
  type: s3
  region: eu-west-1
  force-path-style: True
bucket: common
access-key-id: k
secret-access-key: s
snapshot:
dbs:
  - path: /data/a.db
    replica:
      <<: *defaults
      path: a
      region: eu-west-2
  - path: /data/b.db
    replica: {type: file, path: ~/backup}
)");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rules[0].url, "s3://common/a");
  EXPECT_EQ(config->rules[0].options.s3.region, "eu-west-2") << "what is given counts more than what is merged";
  EXPECT_TRUE(config->rules[0].options.s3.path_style);
  EXPECT_EQ(config->rules[1].url, "file:///home/someone/backup");
}

}  // namespace
}  // namespace replica

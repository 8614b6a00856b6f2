// What the environment and the options of replica_attach ask for (docs/configuration.md lists every setting).
//
// Values only; nothing here opens or contacts anything. Secrets stay in S3Options and are never printed.
#ifndef LIBREPLICA_EXT_CONFIG_H_
#define LIBREPLICA_EXT_CONFIG_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "uploader/engine.h"
#include "uploader/s3_store.h"

namespace replica {

// How one database is replicated.
struct AttachOptions {
  S3Options s3;                 // bucket and prefix come from the URL
  bool path_style_set = false;  // else: path style for every endpoint but Amazon's
  EngineOptions engine;
  bool wait_for_commit = false;       // sync=commit
  int64_t commit_timeout = 10000000;  // µs that a COMMIT waits at most
  bool guard = false;                 // keep processes without libreplica from restarting the WAL too early
  std::string schema = "main";        // replica_attach only
};

struct Config {
  std::string url;  // of the replica; databases lie below it. Empty: not configured
  AttachOptions options;
  bool required = false;
  std::string required_by;              // "RAILS_ENV=production"
  std::vector<std::string> missing;     // settings that a replica would need, by name
  std::vector<std::string> databases;   // paths or globs; empty: all
  int64_t shutdown_timeout = 10000000;  // µs
  bool restore_missing = false;         // REPLICA_RESTORE=auto
};

// The value of an environment variable, or null.
using Environment = std::function<const char*(const char* name)>;

// Reads REPLICA_X, then LITESTREAM_X, then the AWS name of each setting. kInvalidArgument: a value that cannot be
// understood, by the variable's name.
Result<Config> ReadConfig(const Environment& environment);

// The message for a required replica that is not configured.
std::string MissingMessage(const Config& config);

// Puts the JSON object of replica_attach over `options`. An unknown name is an error that lists the known ones.
Status ApplyJson(const std::string& json, AttachOptions* options);

// True when the environment's replica covers this database (absolute path).
bool Covers(const Config& config, const std::string& path);

struct ReplicaUrl {
  enum Kind { kFile, kS3 } kind = kFile;
  std::string folder;  // absolute, for kFile
  std::string bucket;
  std::string prefix;  // without slashes at its ends
};
// file:///absolute/folder or s3://bucket/prefix.
Result<ReplicaUrl> ParseUrl(const std::string& url);

}  // namespace replica

#endif  // LIBREPLICA_EXT_CONFIG_H_

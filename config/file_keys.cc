#include "config/file_keys.h"

namespace replica {
namespace {

constexpr auto kEverywhere = kTop | kDatabase | kReplica;
constexpr FileKey kFileKeys[] = {
    {"dbs", kTop, FileKey::kStructure, ""},
    {"snapshot", kTop | kDatabase, FileKey::kStructure, ""},
    {"dashboard", kTop, FileKey::kStructure, ""},
    {"path", kDatabase | kReplica, FileKey::kStructure, ""},
    {"dir", kDatabase, FileKey::kStructure, ""},
    {"pattern", kDatabase, FileKey::kStructure, ""},
    {"recursive", kDatabase, FileKey::kStructure, ""},
    {"replica", kDatabase, FileKey::kStructure, ""},
    {"replicas", kDatabase, FileKey::kStructure, ""},
    {"restore-if-db-not-exists", kDatabase, FileKey::kStructure, ""},
    {"url", kTop | kDatabase | kReplica, FileKey::kStructure, ""},
    {"bucket", kTop | kReplica, FileKey::kStructure, ""},
    {"type", kReplica, FileKey::kStructure, ""},
    {"addr", kTop, FileKey::kAlias, "metrics-listen"},
    {"interval", kSnapshotSection, FileKey::kAlias, "snapshot-interval"},
    {"shutdown-sync-timeout", kTop, FileKey::kAlias, "shutdown-timeout"},

    {"watch", kDatabase, FileKey::kUnneeded, "new databases are seen when they are opened"},
    {"name", kReplica, FileKey::kUnneeded, "a database has one replica, which needs no name"},
    {"monitor-interval", kDatabase, FileKey::kUnneeded, "commits wake the uploader: nothing is polled"},
    {"checkpoint-interval", kDatabase, FileKey::kUnneeded, "checkpoints are left to SQLite"},
    {"busy-timeout", kDatabase, FileKey::kUnneeded, "no lock is taken that could be busy"},
    {"min-checkpoint-page-count", kDatabase, FileKey::kUnneeded, "checkpoints are left to SQLite"},
    {"max-checkpoint-page-count", kDatabase, FileKey::kUnneeded, "checkpoints are left to SQLite"},
    {"truncate-page-n", kDatabase, FileKey::kUnneeded, "checkpoints are left to SQLite"},
    {"logging", kTop, FileKey::kUnneeded, "events are kept beside each database: see `replica events`"},
    {"levels", kTop, FileKey::kUnneeded, "there are no compaction levels"},
    {"l0-retention", kTop, FileKey::kUnneeded, "there are no compaction levels"},
    {"l0-retention-check-interval", kTop, FileKey::kUnneeded, "there are no compaction levels"},
    {"shutdown-sync-interval", kTop, FileKey::kUnneeded, "retries at shutdown back off by themselves"},
    {"part-size", kEverywhere, FileKey::kUnneeded, "objects are sent in one PUT"},
    {"concurrency", kEverywhere, FileKey::kUnneeded, "objects are sent in one PUT"},
    {"sign-payload", kEverywhere, FileKey::kUnneeded, "payloads are always signed"},
    {"validation-interval", kEverywhere, FileKey::kUnneeded,
     "run `replica verify` as often as you like: each segment carries the checksum that proves it"},
    {"socket", kTop, FileKey::kUnneeded, "`replica status` and `replica sync` need no socket"},
    {"validation", kTop, FileKey::kUnneeded, "each segment carries the checksum that proves it; see `replica verify`"},
    {"verify-compaction", kTop, FileKey::kUnneeded, "there are no compaction levels"},
    {"max-sync-wal-bytes", kDatabase, FileKey::kUnneeded, "the WAL is captured whole"},
    {"require-content-md5", kEverywhere, FileKey::kUnneeded, "payloads are always signed"},
    {"auto-recover", kEverywhere, FileKey::kUnneeded, "a gap is always healed, by difference"},
    {"max-sync-ltx-files", kEverywhere, FileKey::kUnneeded, "there are no LTX files"},
    {"meta-path", kDatabase, FileKey::kUnsupported, "state lies in <database>-replica, beside the database"},
    {"meta-dir", kDatabase, FileKey::kUnsupported, "state lies in <database>-replica, beside the database"},
    {"heartbeat-url", kTop, FileKey::kUnsupported, "watch /healthz of `replica dashboard` instead"},
    {"heartbeat-interval", kTop, FileKey::kUnsupported, "watch /healthz of `replica dashboard` instead"},
    {"storage-class", kEverywhere, FileKey::kUnsupported, "objects get the bucket's default class"},
    {"mcp-addr", kTop, FileKey::kUnsupported, "there is no MCP server"},
    {"mcp-path", kTop, FileKey::kUnsupported, "there is no MCP server"},
    {"retention", kEverywhere | kSnapshotSection, FileKey::kUnsupported,
     "history is kept for ever: nothing is deleted"},
    {"retention-check-interval", kEverywhere, FileKey::kUnsupported, "history is kept for ever: nothing is deleted"},

    {"age", kEverywhere, FileKey::kRefused,
     "encrypted segments are not supported; the replica would lie there in clear"},
    {"skip-verify", kEverywhere, FileKey::kRefused, "TLS is always verified; give ca-file for a private CA"},
    {"sse-customer-algorithm", kTop | kReplica, FileKey::kRefused, "customer keys are not supported"},
    {"sse-customer-key", kTop | kReplica, FileKey::kRefused, "customer keys are not supported"},
    {"sse-customer-key-path", kTop | kReplica, FileKey::kRefused, "customer keys are not supported"},
    {"sse-kms-key-id", kTop | kReplica, FileKey::kRefused, "set the bucket's default encryption instead"},
    {"account-name", kReplica, FileKey::kRefused, "Azure is not supported; give an S3 endpoint, or file"},
    {"account-key", kReplica, FileKey::kRefused, "Azure is not supported; give an S3 endpoint, or file"},
    {"sas-token", kReplica, FileKey::kRefused, "Azure is not supported; give an S3 endpoint, or file"},
    {"webdav-url", kReplica, FileKey::kRefused, "WebDAV is not supported; give an S3 endpoint, or file"},
    {"webdav-username", kReplica, FileKey::kRefused, "WebDAV is not supported; give an S3 endpoint, or file"},
    {"webdav-password", kReplica, FileKey::kRefused, "WebDAV is not supported; give an S3 endpoint, or file"},
    {"host", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
    {"user", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
    {"password", kDashboardSection, FileKey::kRefused,
     "a password's hash belongs here: password-hash, as `replica dashboard --hash-password` prints it"},
    {"password", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
    {"key-path", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
    {"host-key", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
    {"concurrent-writes", kReplica, FileKey::kRefused, "SFTP is not supported; give an S3 endpoint, or file"},
};

}  // namespace

const FileKey* FindFileKey(const std::string& key, KeyLevel level) {
  for (const FileKey& known : kFileKeys)
    if (key == known.key && (known.levels & level) != 0) return &known;
  return nullptr;
}

}  // namespace replica

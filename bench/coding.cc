// One second of an OLTP load, coded in the ways that docs/format.md chose between: what bench/coding.sh prints.
//
//   coding FOLDER       leaves FOLDER/app.db and FOLDER/app.db-wal, the load's WAL alone, for other tools
//
// 470 commits of one row each (text of 200 letters, an index on a random number) into a table of 20,000 rows. The log
// segments are written by the product's own encoder; rows marked * call zstd directly, as a bound.
#include <sqlite3.h>
#include <zstd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/fs.h"
#include "uploader/page_table.h"
#include "uploader/segment_writer.h"
#include "vfs/wal_format.h"

namespace {

using replica::Status;

constexpr uint32_t kPageSize = 4096;
constexpr int kRows = 20000;
constexpr int kCommits = 470;
constexpr int kLevel = 3;

struct Version {
  uint32_t page;
  uint64_t txid;
  const uint8_t* data;
};

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

class Load {
 public:
  explicit Load(const std::string& path) : path_(path) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) Fail(sqlite3_errmsg(db_));
    Exec(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0;"
        "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT); CREATE INDEX t_k ON t(k)");
    Exec("BEGIN");
    for (int i = 0; i < kRows; i++) Insert();
    Exec("COMMIT");
    Exec("PRAGMA wal_checkpoint(TRUNCATE)");
    rows.clear();
    for (int i = 0; i < kCommits; i++) Insert();
    // No close: it would checkpoint the WAL away.
  }

  std::string rows;  // the bytes that were inserted, without any page around them

 private:
  void Exec(const std::string& sql) {
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) Fail(sqlite3_errmsg(db_));
  }
  uint64_t Random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
  }
  void Insert() {
    const uint64_t k = Random() >> 1;
    std::string v;
    for (int i = 0; i < 200; i++) v += static_cast<char>('a' + Random() % 24);
    rows.append(reinterpret_cast<const char*>(&k), sizeof k).append(v);
    Exec("INSERT INTO t(k, v) VALUES (" + std::to_string(k) + ", '" + v + "')");
  }

  const std::string path_;
  sqlite3* db_ = nullptr;
  uint64_t random_ = 88172645463325252ULL;
};

std::string Read(const std::string& path) {
  auto bytes = replica::ReadFile(path, UINT64_MAX);
  if (!bytes.ok()) Fail(bytes.status().message());
  return *bytes;
}

uint64_t Zstd(const std::string& prefix, const std::string& raw, int level) {
  ZSTD_CCtx* c = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
  if (!prefix.empty()) {
    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, 26);
    ZSTD_CCtx_setParameter(c, ZSTD_c_enableLongDistanceMatching, 1);
    ZSTD_CCtx_refPrefix(c, prefix.data(), prefix.size());
  }
  std::string out(ZSTD_compressBound(raw.size()), '\0');
  const size_t n = ZSTD_compress2(c, out.data(), out.size(), raw.data(), raw.size());
  ZSTD_freeCCtx(c);
  if (ZSTD_isError(n)) Fail(std::string("zstd: ") + ZSTD_getErrorName(n));
  return n;
}

class Bench {
 public:
  explicit Bench(std::string folder) : folder_(std::move(folder)), load_(folder_ + "/app.db") {
    database_ = Read(folder_ + "/app.db");
    wal_ = Read(folder_ + "/app.db-wal");
    const auto* bytes = reinterpret_cast<const uint8_t*>(wal_.data());
    uint64_t txid = 1;
    for (uint32_t i = 1; replica::FrameOffset(i, kPageSize) + replica::kFrameHeaderSize + kPageSize <= wal_.size();
         i++) {
      const uint8_t* frame = bytes + replica::FrameOffset(i, kPageSize);
      const replica::FrameHeader h = replica::ParseFrameHeader(frame);
      versions_.push_back({h.page, txid, frame + replica::kFrameHeaderSize});
      if (h.commit()) txid++;
    }
    commits_ = txid - 1;
    if (commits_ != kCommits)
      Fail("the WAL holds " + std::to_string(commits_) + " commits of " + std::to_string(kCommits));
    std::sort(versions_.begin(), versions_.end(),
              [](const Version& a, const Version& b) { return a.page != b.page ? a.page < b.page : a.txid < b.txid; });
  }

  void Run() {
    std::printf("%llu commits, %zu frames, WAL %zu bytes\n\n", static_cast<unsigned long long>(commits_),
                versions_.size(), wal_.size());
    std::vector<Version> last;
    std::string raw;
    std::string bases;
    for (size_t i = 0; i < versions_.size(); i++) {
      if (i + 1 == versions_.size() || versions_[i + 1].page != versions_[i].page) last.push_back(versions_[i]);
      if (i == 0 || versions_[i - 1].page != versions_[i].page)
        if (const uint8_t* base = Base(versions_[i].page)) bases.append(reinterpret_cast<const char*>(base), kPageSize);
      raw.append(reinterpret_cast<const char*>(versions_[i].data), kPageSize);
    }
    Print("last versions, zstd -3 in 256 KiB blocks", Segment(last, false, replica::kBlockTarget));
    Print("all versions, sorted, zstd -3 in 256 KiB blocks", Segment(versions_, false, replica::kBlockTarget));
    Print("all versions, prefix-coded in 64 KiB blocks", Segment(versions_, true, replica::kBlockTarget / 4));
    Print("all versions, prefix-coded in 256 KiB blocks (the product)",
          Segment(versions_, true, replica::kBlockTarget));
    Print("* all versions, one prefix for all, long-distance matching", Zstd(bases, raw, kLevel));
    Print("* the inserted rows alone, zstd -19", Zstd("", load_.rows, 19));
  }

 private:
  const uint8_t* Base(uint32_t page) const {
    const size_t at = size_t{page - 1} * kPageSize;
    return at + kPageSize <= database_.size() ? reinterpret_cast<const uint8_t*>(database_.data()) + at : nullptr;
  }

  // Bytes of the whole segment, header, index and trailer included.
  uint64_t Segment(const std::vector<Version>& versions, bool prefix, uint64_t block) {
    replica::SegmentHeader header;
    header.page_size = kPageSize;
    replica::SegmentWriter::Options options;
    options.level = kLevel;
    options.block = block;
    const auto start = std::chrono::steady_clock::now();
    auto writer = replica::SegmentWriter::Create(folder_ + "/segment", header, options);
    if (!writer.ok()) Fail(writer.status().message());
    for (const Version& v : versions) {
      const uint64_t hash = replica::PageHash(v.data, kPageSize, v.page);
      Status status = (*writer)->Add(v.page, v.txid, v.data, prefix ? Base(v.page) : nullptr, hash);
      if (!status.ok()) Fail(status.message());
    }
    replica::SegmentTrailer trailer;
    trailer.max_txid = commits_;
    const std::vector<replica::CommitEntry> commits(commits_);
    auto encoded = (*writer)->Finish(trailer, commits);
    if (!encoded.ok()) Fail(encoded.status().message());
    millis_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    return encoded->size;
  }

  void Print(const char* coding, uint64_t bytes) {
    std::printf("%-60s %9llu", coding, static_cast<unsigned long long>(bytes));
    if (coding[0] != '*') std::printf("   %5.1f ms", millis_);
    std::printf("\n");
  }

  const std::string folder_;
  Load load_;
  std::string database_;
  std::string wal_;
  std::vector<Version> versions_;
  uint64_t commits_ = 0;
  double millis_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) Fail("usage: coding FOLDER");
  Bench(argv[1]).Run();
  if (std::fflush(stdout) != 0) Fail("the result cannot be written");
  std::_Exit(0);  // the connection stays open, so that the WAL stays
}

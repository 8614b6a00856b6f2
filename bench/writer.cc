// A single writer: 200-byte rows with one index, one row a commit, synchronous=NORMAL. What the README's figures come
// from.
//
//   writer DATABASE (seconds=S | commits=N) [rate=COMMITS_PER_SECOND] [extension=libreplica.so url=file:///…]
//
// Prints one line of JSON: commits a second, median and largest commit time, the largest WAL, and how long after the
// last commit everything was acknowledged.
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double Micros(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

void Check(int rc, sqlite3* db, const char* what) {
  if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW) return;
  std::fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db));
  std::exit(1);
}

std::string Ask(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  Check(sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr), db, sql.c_str());
  Check(sqlite3_step(statement), db, sql.c_str());
  const unsigned char* text = sqlite3_column_text(statement, 0);
  std::string out = text != nullptr ? reinterpret_cast<const char*>(text) : "";
  sqlite3_finalize(statement);
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options;
  for (int i = 2; i < argc; i++) {
    const std::string argument = argv[i];
    const size_t equal = argument.find('=');
    if (equal != std::string::npos) options[argument.substr(0, equal)] = argument.substr(equal + 1);
  }
  if (argc < 3) {
    std::fprintf(stderr, "usage: writer DATABASE seconds=S|commits=N [rate=R] [extension=F url=U]\n");
    return 2;
  }
  const std::string path = argv[1];
  // A server has threads. In a process with only one, glibc skips some work at every system call and mutex, which would
  // count as the uploader's cost although it is that of having any second thread.
  std::thread([] { std::this_thread::sleep_for(std::chrono::hours(24)); }).detach();
  sqlite3* db = nullptr;
  Check(sqlite3_open(path.c_str(), &db), db, "open");
  Check(sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                     "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB);"
                     "CREATE INDEX IF NOT EXISTS t_k ON t(k)",
                     nullptr, nullptr, nullptr),
        db, "create");
  const bool replicated = options.count("extension") != 0;
  if (replicated) {
    sqlite3_enable_load_extension(db, 1);
    char* error = nullptr;
    if (sqlite3_load_extension(db, options["extension"].c_str(), nullptr, &error) != SQLITE_OK) {
      std::fprintf(stderr, "%s\n", error);
      return 1;
    }
    if (options.count("url") != 0) {
      Ask(db, "SELECT replica_attach('" + options["url"] + "')");
      Ask(db, "SELECT replica_sync()");
    }
  }
  const double seconds = std::atof(options["seconds"].c_str());
  const long commits = std::atol(options["commits"].c_str());
  const double rate = std::atof(options["rate"].c_str());
  sqlite3_stmt* insert = nullptr;
  Check(sqlite3_prepare_v2(db, "INSERT INTO t(k, v) VALUES (?, randomblob(200))", -1, &insert, nullptr), db, "prepare");
  std::vector<float> times;
  times.reserve(4000000);
  long largest_wal = 0;
  const auto start = Clock::now();
  unsigned long long random = 88172645463325252ULL;
  for (long n = 0; commits != 0 ? n < commits : Micros(Clock::now() - start) < seconds * 1e6; n++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    const auto before = Clock::now();
    sqlite3_bind_int64(insert, 1, static_cast<sqlite3_int64>(random >> 1));
    Check(sqlite3_step(insert), db, "insert");
    sqlite3_reset(insert);
    times.push_back(static_cast<float>(Micros(Clock::now() - before)));
    if (n % 200 == 0) {
      struct stat st {};
      if (stat((path + "-wal").c_str(), &st) == 0) largest_wal = std::max(largest_wal, static_cast<long>(st.st_size));
    }
    if (rate > 0) {
      const auto due = start + std::chrono::microseconds(static_cast<long>(1e6 * static_cast<double>(n + 1) / rate));
      std::this_thread::sleep_until(due);
    }
  }
  const auto end = Clock::now();
  double acknowledged = 0;
  std::string status = "null";
  if (replicated && options.count("url") != 0) {
    Ask(db, "SELECT replica_sync('main', 120000)");
    acknowledged = Micros(Clock::now() - end) / 1e6;
    status = Ask(db, "SELECT replica_status()");
  }
  sqlite3_finalize(insert);
  std::vector<float> sorted = times;
  std::sort(sorted.begin(), sorted.end());
  std::printf(
      "{\"commits\": %zu, \"commits_per_second\": %.0f, \"median_us\": %.1f, \"p99_us\": %.1f, \"largest_us\": %.0f, "
      "\"largest_wal_bytes\": %ld, \"acknowledged_after_seconds\": %.3f, \"status\": %s}\n",
      times.size(), static_cast<double>(times.size()) / (Micros(end - start) / 1e6), sorted[sorted.size() / 2],
      sorted[sorted.size() * 99 / 100], sorted.back(), largest_wal, acknowledged, status.c_str());
  sqlite3_close(db);
  return 0;
}

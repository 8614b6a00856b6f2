// A single writer: 200-byte rows with one index, one row a commit, synchronous=NORMAL. What the README's figures come
// from.
//
//   writer DATABASE (seconds=S | commits=N) [rate=COMMITS_PER_SECOND] [extension=libreplica.so url=file:///…]
//
// Prints one line of JSON: commits a second, median and largest commit time, the largest WAL, and how long after the
// last commit everything was acknowledged. Ends with 1 when nothing was committed or nothing acknowledged, with 2 when
// the arguments make no sense.
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

[[noreturn]] void Fail(int code, const std::string& why) {
  std::fprintf(stderr, "writer: %s\n", why.c_str());
  std::exit(code);
}

void Check(int rc, sqlite3* db, const char* what) {
  if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW) return;
  Fail(1, std::string(what) + ": " + sqlite3_errmsg(db));
}

// A positive number, or 0 where it is not given.
double Number(const std::map<std::string, std::string>& options, const char* name) {
  const auto given = options.find(name);
  if (given == options.end()) return 0;
  char* end = nullptr;
  const double value = std::strtod(given->second.c_str(), &end);
  if (given->second.empty() || *end != '\0' || !(value > 0))
    Fail(2, std::string(name) + "=" + given->second + ": give a number greater than 0");
  return value;
}

std::string Ask(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  Check(sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr), db, sql.c_str());
  Check(sqlite3_step(statement), db, sql.c_str());
  if (sqlite3_column_type(statement, 0) == SQLITE_NULL) Fail(1, sql + ": no answer");
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
    const size_t equal = std::min(argument.find('='), argument.size());
    const std::string name = argument.substr(0, equal);
    if (name != "seconds" && name != "commits" && name != "rate" && name != "extension" && name != "url")
      Fail(2, "there is no option \"" + argument + "\"");
    options[name] = argument.substr(std::min(equal + 1, argument.size()));
  }
  const double seconds = Number(options, "seconds");
  const long commits = static_cast<long>(Number(options, "commits"));
  const double rate = Number(options, "rate");
  if (argc < 3 || (seconds > 0) == (commits > 0) || options.count("extension") != options.count("url"))
    Fail(2, "usage: writer DATABASE seconds=S|commits=N [rate=R] [extension=F url=U]");
  const std::string path = argv[1];
  // A server has threads. In a process with only one, glibc skips some work at every system call and mutex, which would
  // count as the uploader's cost although it is that of having any second thread.
  std::thread([] { std::this_thread::sleep_for(std::chrono::hours(24)); }).detach();
  sqlite3* db = nullptr;
  const int opened = sqlite3_open(path.c_str(), &db);
  Check(opened, db, "open");
  Check(sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                     "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, k INTEGER, v BLOB);"
                     "CREATE INDEX IF NOT EXISTS t_k ON t(k)",
                     nullptr, nullptr, nullptr),
        db, "create");
  const bool replicated = options.count("extension") != 0;
  long long first = 0;  // TXID before the load
  if (replicated) {
    sqlite3_enable_load_extension(db, 1);
    char* error = nullptr;
    if (sqlite3_load_extension(db, options["extension"].c_str(), nullptr, &error) != SQLITE_OK) {
      Fail(1, error);
    }
    if (options.count("url") != 0) {
      Ask(db, "SELECT replica_attach('" + options["url"] + "')");
      first = std::atoll(Ask(db, "SELECT replica_sync()").c_str());
    }
  }
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
    const long long last = std::atoll(Ask(db, "SELECT replica_sync('main', 120000)").c_str());
    if (last <= first) Fail(1, "nothing was acknowledged: TXID " + std::to_string(last));
    acknowledged = Micros(Clock::now() - end) / 1e6;
    status = Ask(db, "SELECT replica_status()");
  }
  sqlite3_finalize(insert);
  if (times.empty()) Fail(1, "nothing was committed");
  std::vector<float> sorted = times;
  std::sort(sorted.begin(), sorted.end());
  std::printf(
      "{\"commits\": %zu, \"commits_per_second\": %.0f, \"median_us\": %.1f, \"p99_us\": %.1f, \"largest_us\": %.0f, "
      "\"largest_wal_bytes\": %ld, \"acknowledged_after_seconds\": %.3f, \"status\": %s}\n",
      times.size(), static_cast<double>(times.size()) / (Micros(end - start) / 1e6), sorted[sorted.size() / 2],
      sorted[sorted.size() * 99 / 100], sorted.back(), largest_wal, acknowledged, status.c_str());
  if (std::fflush(stdout) != 0) Fail(1, "the result cannot be written");
  Check(sqlite3_close(db), db, "close");
  return 0;
}

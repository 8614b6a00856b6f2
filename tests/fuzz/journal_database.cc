#include "tests/fuzz/journal_database.h"

#include <sqlite3.h>

#include <cstdlib>

#include "ext/replica.h"

namespace replica::fuzz {

bool OpenApplication(const std::string& path) {
  constexpr char kMake[] =
      "PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1);"
      "INSERT INTO t VALUES(2); INSERT INTO t VALUES(3)";
  static sqlite3* db = nullptr;
  return ::setenv("REPLICA_CONFIG", "off", 1) == 0 &&
         sqlite3_auto_extension(reinterpret_cast<void (*)()>(sqlite3_replica_init)) == SQLITE_OK &&
         sqlite3_open(path.c_str(), &db) == SQLITE_OK &&
         sqlite3_exec(db, kMake, nullptr, nullptr, nullptr) == SQLITE_OK;
}

}  // namespace replica::fuzz

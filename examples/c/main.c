/*
** A C program with libreplica linked in: it writes a ledger, waits until the store has all of it, proves the replica,
** loses the database and restores it. Exits non-zero on any difference.
**
**   REPLICA_URL=s3://bucket/c-example ./ledger [FOLDER]     the replica lies at <REPLICA_URL>/ledger.db
*/
#include <replica.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sqlite3* db;

static void fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, db ? sqlite3_errmsg(db) : "no connection");
  exit(1);
}

static void open_database(const char* path) {
  if (sqlite3_open(path, &db) != SQLITE_OK) fail(path);
}

/* The first column of the statement's last row, as text; the caller frees it. */
static char* ask(const char* sql) {
  sqlite3_stmt* statement;
  char* answer = NULL;
  int rc;
  if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) fail(sql);
  while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
    sqlite3_free(answer);
    answer = sqlite3_mprintf("%s", sqlite3_column_text(statement, 0));
  }
  if (rc != SQLITE_DONE) fail(sql);
  sqlite3_finalize(statement);
  return answer;
}

static void must_be(const char* sql, const char* expected) {
  char* answer = ask(sql);
  printf("%s: %s\n", sql, answer);
  if (answer == NULL || strcmp(answer, expected) != 0) {
    fprintf(stderr, "expected %s\n", expected);
    exit(1);
  }
  sqlite3_free(answer);
}

int main(int argc, char** argv) {
  const char* contents = "SELECT count(*) || ' ' || sum(id * amount) || ' ' || group_concat(hex(note)) FROM ledger";
  const char* url = getenv("REPLICA_URL");
  char* path = sqlite3_mprintf("%s/ledger.db", argc > 1 ? argv[1] : ".");
  if (url == NULL) fail("set REPLICA_URL");

  /* Once, before the first database is opened: from here on every connection has it. */
  sqlite3_auto_extension((void (*)(void))sqlite3_replica_init);
  open_database(path);
  printf("libreplica %s\n", replica_version_string());
  sqlite3_free(ask("PRAGMA journal_mode=WAL"));
  sqlite3_free(ask("CREATE TABLE ledger(id INTEGER PRIMARY KEY, amount INTEGER, note BLOB)"));
  char* first = ask("SELECT replica_sync()"); /* from here on each commit has a TXID of its own */
  for (int i = 0; i < 500; i++)               /* 500 commits */
    sqlite3_free(ask("INSERT INTO ledger(amount, note) VALUES(abs(random()) % 1000, randomblob(20))"));
  must_be(sqlite3_mprintf("SELECT replica_sync() - %s", first), "500");
  must_be("SELECT json_extract(replica_status(), '$.state')", "streaming");
  must_be("SELECT json_extract(replica_status(), '$.lag.txids')", "0");
  must_be("SELECT json_extract(replica_verify('main', 'full'), '$.ok')", "1");
  char* before = ask(contents);
  sqlite3_close(db);

  if (system(sqlite3_mprintf("rm -r '%s'*", path)) != 0) return 1;
  open_database(":memory:");
  puts(ask(sqlite3_mprintf("SELECT replica_restore('%q/ledger.db', '%q')", url, path)));
  sqlite3_close(db);
  open_database(path);
  must_be("PRAGMA integrity_check", "ok");
  must_be(contents, before);
  sqlite3_close(db);
  return 0;
}

/*
** An application that takes every error as SQLite gives it, and goes on: failing_test.py preloads failing.c into it.
**
**   failing_host DATABASE LIBRARY URL
**
** Prints whether it could be attached, the number of rows that it was told are committed, what replica_sync() answered
*at the end (0: an error), and
** what replica_status() did, or the error instead of it.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static char status[4000];

static int Run(sqlite3* db, const char* sql) {
  return sqlite3_exec(db, sql, 0, 0, 0) == SQLITE_OK;
}

static int KeepStatus(void* unused, int n, char** values, char** names) {
  (void)unused, (void)n, (void)names;
  if (values[0] != NULL) strncpy(status, values[0], sizeof status - 1);
  return 0;
}

int main(int argc, char** argv) {
  void (*arm)(void);
  sqlite3 *loader = 0, *db = 0;
  sqlite3_stmt* attach = 0;
  int i, loaded, attached = 0, rows = 0, synced = 0;
  if (argc != 4) return 2;
  if (sqlite3_open(":memory:", &loader) != SQLITE_OK) return 2;
  /* The initialisers of other libraries (GnuTLS, Kerberos) end the process without memory: they come first. */
  if (dlopen(argv[2], RTLD_NOW) == NULL) return 2;
  *(void**)&arm = dlsym(RTLD_DEFAULT, "failing_arm");
  if (arm != NULL) arm();
  sqlite3_enable_load_extension(loader, 1);
  loaded = sqlite3_load_extension(loader, argv[2], 0, 0) == SQLITE_OK;
  if (sqlite3_open(argv[1], &db) == SQLITE_OK) {
    Run(db, "PRAGMA journal_mode=WAL");
    Run(db, "CREATE TABLE IF NOT EXISTS t(a)");
    if (sqlite3_prepare_v2(db, "SELECT replica_attach(?)", -1, &attach, 0) == SQLITE_OK) {
      sqlite3_bind_text(attach, 1, argv[3], -1, SQLITE_STATIC);
      attached = sqlite3_step(attach) == SQLITE_ROW;
    }
    sqlite3_finalize(attach);
    for (i = 0; i < 3; i++) rows += Run(db, "INSERT INTO t VALUES(zeroblob(5000))");
    Run(db, "SELECT replica_sync('main', 1500)");
    Run(db, "SELECT count(*) FROM replica_events");
    Run(db, "SELECT count(*) FROM replica_databases");
    rows += Run(db, "INSERT INTO t VALUES(2)");
    Run(db, "PRAGMA wal_checkpoint(RESTART)");
    rows += Run(db, "INSERT INTO t VALUES(3)");
    /* It may be this call that has no memory. */
    synced = Run(db, "SELECT replica_sync('main', 1500)") || Run(db, "SELECT replica_sync('main', 1500)");
    if (sqlite3_exec(db, "SELECT replica_status()", KeepStatus, 0, 0) != SQLITE_OK)
      snprintf(status, sizeof status, "{\"message\": \"%s\"}", sqlite3_errmsg(db));
    if (synced) Run(db, "SELECT replica_verify()"); /* it would wait a minute */
  } else {
    snprintf(status, sizeof status, "{\"message\": \"not opened: %s\"}", sqlite3_errmsg(db));
  }
  sqlite3_close(db);
  sqlite3_close(loader);
  printf("%d\n%d\n%d\n%s\n", loaded && attached, rows, synced, status);
  return 0;
}

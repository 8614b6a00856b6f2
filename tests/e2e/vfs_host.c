/*
** Hosts with VFSes and method tables of their own, which libreplica is loaded into: late_load_test.py.
**
**   vfs_host CASE DATABASE LIBRARY      prints "ok" when the database is usable after the load
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static sqlite3_vfs vfs;
static sqlite3_vfs* base;

/* One table, in front of a file that was open before, that calls through. */
static sqlite3_io_methods front;
static const sqlite3_io_methods* below;
static int FrontLock(sqlite3_file* f, int offset, int n, int flags) {
  return below->xShmLock(f, offset, n, flags);
}
static int FrontClose(sqlite3_file* f) {
  f->pMethods = below;
  return f->pMethods->xClose(f);
}

/* A table for each file, gone with it. */
typedef struct {
  sqlite3_io_methods methods;
  const sqlite3_io_methods* lower;
} OwnTable;
static int OwnTableClose(sqlite3_file* f) {
  OwnTable* t = (OwnTable*)f->pMethods;
  int rc;
  f->pMethods = t->lower;
  rc = f->pMethods->xClose(f);
  munmap(t, 4096);
  return rc;
}
static int OwnTableOpen(sqlite3_vfs* v, const char* name, sqlite3_file* f, int flags, int* out) {
  OwnTable* t;
  int rc = base->xOpen(base, name, f, flags, out);
  (void)v;
  if (rc != SQLITE_OK || !(flags & SQLITE_OPEN_MAIN_DB)) return rc;
  t = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  t->methods = *f->pMethods;
  t->lower = f->pMethods;
  t->methods.xClose = OwnTableClose;
  f->pMethods = &t->methods;
  return rc;
}

/* A VFS that opens a connection to open a file. */
static int NestedOpen(sqlite3_vfs* v, const char* name, sqlite3_file* f, int flags, int* out) {
  (void)v;
  if (flags & SQLITE_OPEN_MAIN_DB) {
    sqlite3* inner = 0;
    sqlite3_open_v2(":memory:", &inner, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix");
    sqlite3_close(inner);
  }
  return base->xOpen(base, name, f, flags, out);
}

static void Register(const char* name, int (*open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*), int first) {
  vfs = *base;
  vfs.zName = name;
  if (open != 0) vfs.xOpen = open;
  vfs.pNext = 0;
  sqlite3_vfs_register(&vfs, first);
}

static void Check(int rc, const char* what) {
  if (rc == SQLITE_OK) return;
  fprintf(stderr, "%s: %s\n", what, sqlite3_errstr(rc));
  exit(1);
}

static void Load(sqlite3* db, const char* library) {
  char* error = 0;
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, library, 0, &error) == SQLITE_OK) return;
  fprintf(stderr, "load: %s\n", error);
  exit(1);
}

int main(int argc, char** argv) {
  const char* which = argv[1];
  sqlite3* db = 0;
  sqlite3* loader = 0;
  int i;
  if (argc != 4) return 2;
  base = sqlite3_vfs_find(0);
  Check(sqlite3_open(":memory:", &loader), "open");
  if (strcmp(which, "copied-vfs") == 0) {
    Load(loader, argv[3]);
    base = sqlite3_vfs_find(0);
    Register("copy", 0, 0);
    Check(sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "copy"), "open");
  } else {
    if (strcmp(which, "own-tables") == 0) Register("own-tables", OwnTableOpen, 1);
    if (strcmp(which, "nested-open") == 0) Register("nested-open", NestedOpen, 1);
    Check(sqlite3_open(argv[2], &db), "open");
    Check(sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(x)", 0, 0, 0), "create");
    if (strcmp(which, "table-in-front") == 0) {
      sqlite3_file* f = 0;
      Check(sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f), "file");
      below = f->pMethods;
      front = *below;
      front.xShmLock = FrontLock;
      front.xClose = FrontClose;
      f->pMethods = &front;
    }
    Load(strcmp(which, "own-tables") == 0 ? db : loader, argv[3]);
  }
  Check(sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(x)", 0, 0, 0), "create");
  for (i = 0; i < 100; i++) Check(sqlite3_exec(db, "INSERT INTO t VALUES(1)", 0, 0, 0), "insert");
  Check(sqlite3_close(db), "close");
  Check(sqlite3_close(loader), "close");
  puts("ok");
  return 0;
}

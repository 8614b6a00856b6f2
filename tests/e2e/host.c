/*
** A host of SQLite for what the sqlite3 shell and Python cannot do: trust_test.py.
**
**   host transform DATABASE LIBRARY    a VFS that changes every byte is the default; the library is loaded on it, a row
**                                      is written; prints replica_attach's answer
**   host persist DATABASE LIBRARY      closes with SQLITE_FCNTL_PERSIST_WAL
**   host persist-limit DATABASE LIBRARY   and with a journal_size_limit
**   host no-checkpoint DATABASE LIBRARY   closes with SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE
**   host open DATABASE LIBRARY         sqlite3_open of a database while the library is loaded by another connection;
**                                      prints its result code
**   host pthread-exit DATABASE LIBRARY    main ends by pthread_exit with the database open
*/
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- a VFS that transforms: what is in the files is not what SQLite reads */
static sqlite3_vfs transform_vfs;
static sqlite3_vfs* base;
typedef struct {
  sqlite3_file file;
  sqlite3_file* real;
} TransformFile;
#define REAL(f) (((TransformFile*)(f))->real)
static int TClose(sqlite3_file* f) {
  return REAL(f)->pMethods->xClose(REAL(f));
}
static void Turn(void* bytes, int n) {
  int i;
  for (i = 0; i < n; i++) ((unsigned char*)bytes)[i] ^= 0x5a;
}
static int TRead(sqlite3_file* f, void* out, int n, sqlite3_int64 at) {
  int rc = REAL(f)->pMethods->xRead(REAL(f), out, n, at);
  if (rc == SQLITE_OK) Turn(out, n);
  return rc;
}
static int TWrite(sqlite3_file* f, const void* in, int n, sqlite3_int64 at) {
  char* copy = malloc((size_t)n);
  int rc;
  memcpy(copy, in, (size_t)n);
  Turn(copy, n);
  rc = REAL(f)->pMethods->xWrite(REAL(f), copy, n, at);
  free(copy);
  return rc;
}
static int TTruncate(sqlite3_file* f, sqlite3_int64 n) {
  return REAL(f)->pMethods->xTruncate(REAL(f), n);
}
static int TSync(sqlite3_file* f, int flags) {
  return REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int TSize(sqlite3_file* f, sqlite3_int64* n) {
  return REAL(f)->pMethods->xFileSize(REAL(f), n);
}
static int TLock(sqlite3_file* f, int level) {
  return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int TUnlock(sqlite3_file* f, int level) {
  return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int TReserved(sqlite3_file* f, int* out) {
  return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int TControl(sqlite3_file* f, int op, void* p) {
  return REAL(f)->pMethods->xFileControl(REAL(f), op, p);
}
static int TSector(sqlite3_file* f) {
  return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int TDevice(sqlite3_file* f) {
  return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int TShmMap(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  return REAL(f)->pMethods->xShmMap(REAL(f), region, size, extend, out);
}
static int TShmLock(sqlite3_file* f, int at, int n, int flags) {
  return REAL(f)->pMethods->xShmLock(REAL(f), at, n, flags);
}
static void TShmBarrier(sqlite3_file* f) {
  REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int TShmUnmap(sqlite3_file* f, int remove) {
  return REAL(f)->pMethods->xShmUnmap(REAL(f), remove);
}
static const sqlite3_io_methods transform_methods = {
    2,        TClose,  TRead,   TWrite,  TTruncate, TSync,       TSize,     TLock, TUnlock, TReserved,
    TControl, TSector, TDevice, TShmMap, TShmLock,  TShmBarrier, TShmUnmap, 0,     0};
static int TOpen(sqlite3_vfs* v, const char* name, sqlite3_file* f, int flags, int* out) {
  int rc;
  (void)v;
  REAL(f) = (sqlite3_file*)&((TransformFile*)f)[1];
  rc = base->xOpen(base, name, REAL(f), flags, out);
  f->pMethods = rc == SQLITE_OK ? &transform_methods : 0;
  return rc;
}
static void UseTransform(void) {
  base = sqlite3_vfs_find("unix");
  transform_vfs = *base;
  transform_vfs.zName = "transform";
  transform_vfs.xOpen = TOpen;
  transform_vfs.szOsFile = base->szOsFile + (int)sizeof(TransformFile);
  transform_vfs.pNext = 0;
  sqlite3_vfs_register(&transform_vfs, 1);
}

static void Check(sqlite3* db, int rc, const char* what) {
  if (rc == SQLITE_OK) return;
  printf("%s: %s\n", what, sqlite3_errmsg(db));
  exit(1);
}
static void Run(sqlite3* db, const char* sql) {
  Check(db, sqlite3_exec(db, sql, 0, 0, 0), sql);
}
static void Load(sqlite3* db, const char* library) {
  char* error = 0;
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, library, 0, &error) == SQLITE_OK) return;
  printf("load: %s\n", error);
  exit(1);
}

int main(int argc, char** argv) {
  const char *what, *path, *library;
  sqlite3* db = 0;
  if (argc != 4) return 2;
  what = argv[1], path = argv[2], library = argv[3];
  if (strcmp(what, "transform") == 0) {
    sqlite3_stmt* s = 0;
    UseTransform();
    Check(db, sqlite3_open(path, &db), "open");
    Run(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('before the load')");
    Load(db, library);
    Run(db, "INSERT INTO t VALUES('after the load')");
    Check(db, sqlite3_prepare_v2(db, "SELECT replica_attach('file:///tmp/never')", -1, &s, 0), "prepare");
    if (sqlite3_step(s) == SQLITE_ROW) {
      printf("attached\n");
    } else {
      printf("%s\n", sqlite3_errmsg(db));
    }
    sqlite3_finalize(s);
    Run(db, "PRAGMA wal_checkpoint(PASSIVE); INSERT INTO t VALUES('in the WAL')");
    fflush(stdout);
    _Exit(0); /* the WAL stays, to be looked at */
  }
  Check(db, sqlite3_open(strcmp(what, "open") == 0 ? ":memory:" : path, &db), "open");
  Load(db, library);
  if (strcmp(what, "open") == 0) {
    sqlite3* other = 0;
    printf("%d\n", sqlite3_open(path, &other));
    return 0;
  }
  Run(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  if (strncmp(what, "persist", 7) == 0) {
    int on = 1;
    if (strcmp(what, "persist-limit") == 0) Run(db, "PRAGMA journal_size_limit=16384");
    sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
  } else if (strcmp(what, "no-checkpoint") == 0) {
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int*)0);
  } else if (strcmp(what, "pthread-exit") == 0) {
    printf("ready\n");
    fflush(stdout);
    pthread_exit(0);
  }
  Check(db, sqlite3_close(db), "close");
  return 0;
}

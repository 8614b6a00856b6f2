// Linked into each of SQLite's test programs. Compiled twice: plain, it does nothing when SQLite is initialised; with
// -DWITH_REPLICA it makes libreplica, which is linked in, an automatic extension of each connection.
#include "init.h"

#include <pthread.h>

#include "sqlite3.h"

static pthread_t main_thread;

__attribute__((constructor)) static void NoteMainThread(void) {
  main_thread = pthread_self();
}

int suite_main_thread(void) {
  return pthread_equal(main_thread, pthread_self()) != 0;
}

#ifdef WITH_REPLICA
int sqlite3_replica_init(sqlite3*, char**, const sqlite3_api_routines*);
#endif

int suite_init(const char* unused) {
  (void)unused;
#ifdef WITH_REPLICA
  return sqlite3_auto_extension((void (*)(void))sqlite3_replica_init);
#else
  return SQLITE_OK;
#endif
}

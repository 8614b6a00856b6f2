// What main_thread.sed and init.c share. Included before each file of SQLite's (-include).
#ifndef LIBREPLICA_TESTS_SQLITE_INIT_H_
#define LIBREPLICA_TESTS_SQLITE_INIT_H_

int suite_init(const char* unused);  // SQLITE_EXTRA_INIT: called at the end of sqlite3_initialize()
int suite_main_thread(void);         // 1 in the thread that runs main()

#endif  // LIBREPLICA_TESTS_SQLITE_INIT_H_

# SQLite's test tools inject faults (errors of I/O, a full disk, malloc and system calls that fail) by counting down the
# calls of any thread. With a replicated database some calls come from libreplica's threads: a fault that a test meant
# for its own connection would hit the uploader, and the test would fail because nothing happened to it. So only the
# main thread counts, which runs the test. suite_main_thread() is in init.c.
s/sqlite3_io_error_persist && /suite_main_thread() \&\& &/
s/sqlite3_io_error_pending-- == 1/(suite_main_thread() \&\& &)/
s/if( sqlite3_diskfull_pending )/if( suite_main_thread() \&\& sqlite3_diskfull_pending )/
s/likely(!memfault\.enable)/!suite_main_thread() || &/
s/^  memfault\.isBenignMode\(++\|--\);/  if( suite_main_thread() ) memfault.isBenignMode\1;/
s/^  gSyscall\.nCount--;/  if( !suite_main_thread() ) return 0;\n&/

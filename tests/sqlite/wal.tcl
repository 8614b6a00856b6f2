# Runs a test file so that each connection is put into WAL mode first, as permutations.test does it for its suites:
#   testfixture wal.tcl select1.test
set file [lindex $argv 0]
set ::G(perm:name) wal
set ::G(perm:prefix) ""
set ::G(perm:dbconfig) ""
set ::G(perm:presql) "PRAGMA journal_mode=WAL"
set ::G(isquick) 1
set argv0 $file
set argv [list]
source $file

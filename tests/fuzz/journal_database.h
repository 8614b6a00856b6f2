// An application's database, for the target that reads journals.
#ifndef LIBREPLICA_TESTS_FUZZ_JOURNAL_DATABASE_H_
#define LIBREPLICA_TESTS_FUZZ_JOURNAL_DATABASE_H_

#include <string>

namespace replica::fuzz {

// Makes a database of 512-byte pages with a few commits in its WAL, with libreplica loaded and nothing replicated; it
// stays open. False: it failed. (Apart, for here SQLite's own functions are called, not those that it hands to
// extensions.)
bool OpenApplication(const std::string& path);

}  // namespace replica::fuzz

#endif  // LIBREPLICA_TESTS_FUZZ_JOURNAL_DATABASE_H_

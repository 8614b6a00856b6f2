// Whether a database may go on with the history that lies at its URL: decided in one place, from facts, without I/O.
//
// Three kinds of evidence count. The state file says which history this folder wrote, and up to where it knows it. The
// folder's identity says whether the state is its own or a copy of another folder's. The writer id of the history's
// newest object says whether somebody else has appended. Where they do not prove it, the answer is no, unless a person
// has asked for a takeover.
#ifndef LIBREPLICA_UPLOADER_LINEAGE_H_
#define LIBREPLICA_UPLOADER_LINEAGE_H_

namespace replica {

struct LineageFacts {
  bool takeover = false;  // a person said that this database is the one to keep
  // --- the state file
  bool knows_history = false;  // it names this URL, this database and this generation
  bool knows_other = false;    // it is whole, and names another history or URL
  bool same_folder = false;    // it was written in this very folder
  bool restored = false;       // it was made by a restore
  bool head_is_known = false;  // the history ends where this state ends, or before
  bool head_is_ours = false;   // the newest object bears the state's writer id
  bool content_is_head =
      false;  // (only without knows_history) the database is, page by page, what the history ends with
  // --- the claim at the URL
  bool claim_missing = false;
  bool claim_is_folder = false;  // it names this folder by its identity
  bool claim_is_place = false;   // it names this path on this host
  bool claim_is_path = false;    // it names this path, on any host
};

enum class Lineage {
  kContinue,       // it is our own: go on as the same writer
  kContinueNew,    // it is ours, but not as the same writer: a new writer id, and the claim is ours from now on
  kContinueCopy,   // a copy of the folder that wrote it, and nothing newer lies there: whoever appends next keeps it
  kBehind,         // our own past that this state does not know (a power loss): a new writer id, compare, go on
  kFenced,         // another writer has appended since
  kRefuseCopy,     // a copy of the folder that wrote it, and that one (or another) has gone on
  kRefuseRestore,  // a restored file that is not in its database's place
  kRefuseForeign,  // another database's history, as far as anything proves
};

Lineage DecideLineage(const LineageFacts& facts);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_LINEAGE_H_

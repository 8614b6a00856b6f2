// State files as the targets take them.
#ifndef LIBREPLICA_TESTS_FUZZ_STATE_PARTS_H_
#define LIBREPLICA_TESTS_FUZZ_STATE_PARTS_H_

#include "tests/fuzz/fuzz.h"
#include "uploader/state.h"

namespace replica::fuzz {

constexpr size_t kStateHeader = 4096;

// With zeros and the right hash behind `part`.
inline std::string StateHeader(std::string_view part) {
  std::string out(part.substr(0, kStateHeader - 8));
  out.resize(kStateHeader, '\0');
  StoreHash(&out, kStateHeader - 8);
  return out;
}

// The other way round.
inline std::string_view StatePart(std::string_view header) {
  header = header.substr(0, kStateHeader - 8);
  return header.substr(0, header.find_last_not_of('\0') + 1);
}

inline bool Same(const EngineState& a, const EngineState& b) {
  return a.revision == b.revision && a.database == b.database && a.generation == b.generation && a.writer == b.writer &&
         a.folder_identity == b.folder_identity && a.boot == b.boot && a.file == b.file && a.page_size == b.page_size &&
         a.pages == b.pages && a.txid == b.txid && a.sequence == b.sequence && a.checksum == b.checksum &&
         a.time == b.time && a.wal.salts == b.wal.salts && a.wal.frame == b.wal.frame &&
         a.wal.checksum[0] == b.wal.checksum[0] && a.wal.checksum[1] == b.wal.checksum[1] &&
         a.wal.chain == b.wal.chain && a.wal.ordinal == b.wal.ordinal && a.acknowledged_txid == b.acknowledged_txid &&
         a.acknowledged_sequence == b.acknowledged_sequence && a.snapshot_txid == b.snapshot_txid &&
         a.snapshot_bytes == b.snapshot_bytes && a.snapshot_time == b.snapshot_time && a.log_bytes == b.log_bytes &&
         a.partial == b.partial && a.restored == b.restored && a.fenced == b.fenced && a.behind == b.behind &&
         a.claim_due == b.claim_due && a.stamp == b.stamp && a.url == b.url;
}

}  // namespace replica::fuzz

#endif  // LIBREPLICA_TESTS_FUZZ_STATE_PARTS_H_

// Turns what was captured into segments: a batch of commits into a log segment, a read view into a snapshot or a resync.
//
// Each brings the page table along to the state that its segment ends with. Between the table's Begin and Commit, so that
// the caller can roll it back on error. Leader's thread only.
#ifndef LIBREPLICA_UPLOADER_ENCODER_H_
#define LIBREPLICA_UPLOADER_ENCODER_H_

#include <cstdint>
#include <string>

#include "base/status.h"
#include "uploader/batch.h"
#include "uploader/page_table.h"
#include "uploader/segment_writer.h"
#include "uploader/source.h"

namespace replica {

struct EncodeOptions {
  int level = 3;                         // zstd
  uint64_t fold_above = 64ULL << 20;     // bytes of frames; more are folded
  bool prefix = true;                    // code pages against their previous versions
};

// `header` needs page size, ids, writer, sequence and min_txid; kind and flags are set here. `now`: wall clock, µs.
Result<EncodedSegment> EncodeBatch(const Batch& batch, Source* source, SegmentHeader header,
                                   int64_t now, const EncodeOptions& options,
                                   const std::string& path, PageTable* table);

// Every page of the source's view. When `table` has pages it is the expected content and any difference is an error
// (kCorrupt: the database file is not what its commits made it); else it is filled.
Result<EncodedSegment> EncodeSnapshot(Source* source, SegmentHeader header, int64_t now,
                                      const EncodeOptions& options, const std::string& path,
                                      PageTable* table);

// The pages of the view that differ from `table`, as one folded log segment of one TXID. Null size (0) when nothing differs.
Result<EncodedSegment> EncodeDifference(Source* source, SegmentHeader header, uint64_t checksum_before,
                                        int64_t now, const EncodeOptions& options,
                                        const std::string& path, PageTable* table);

// Hashes every page of the source's view.
Result<PageTable> ScanView(Source* source);

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_ENCODER_H_

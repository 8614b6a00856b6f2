// Makes a snapshot of a live database without keeping its WAL from being restarted.
//
// Compressing a database takes seconds a gigabyte; a read mark held so long would let a busy writer's WAL grow by
// gigabytes. So the pages are first copied, a slice at a time and without any read mark, in rounds as a live migration
// copies memory: each round takes the pages whose copy is not what the page table says by now. When few are left, one
// short read view takes the rest. From then on the copy is frozen at one commit, and is compressed in slices while
// capture goes on.
//
// Costs a temporary file of the database's size. Leader's thread only. Memory: 8 bytes a page and the segment writer's.
#ifndef LIBREPLICA_UPLOADER_SNAPSHOT_H_
#define LIBREPLICA_UPLOADER_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/page_table.h"
#include "uploader/segment_writer.h"
#include "uploader/source.h"

namespace replica {

class SnapshotBuilder {
 public:
  // The copy is `path` + ".copy"; the snapshot will be `path`.
  static Result<std::unique_ptr<SnapshotBuilder>> Create(Source* source, const std::string& path, uint32_t page_size);
  ~SnapshotBuilder();
  SnapshotBuilder(const SnapshotBuilder&) = delete;
  SnapshotBuilder& operator=(const SnapshotBuilder&) = delete;

  // Copies a slice. True when the round is over: capture, then either begin another round or freeze.
  Result<bool> CopySlice(const PageTable& table);
  // Pages whose copy is not what `table` says.
  uint32_t Differing(const PageTable& table) const;
  int rounds() const { return rounds_; }

  // Within a read view whose state `table` is: takes the pages that still differ. kCorrupt when the database does not
  // read as the table says. `header` and `trailer` are the snapshot's; their checksums and sizes are set here. `time`
  // is that of the commit which the snapshot shows.
  Status Freeze(const PageTable& table, const SegmentHeader& header, const SegmentTrailer& trailer, int64_t time,
                int level);
  bool frozen() const { return writer_ != nullptr; }
  // Compresses a slice of the frozen copy. True when the snapshot is finished: take it with Finish.
  Result<bool> EncodeSlice();
  Result<EncodedSegment> Finish();

 private:
  SnapshotBuilder(Source* source, std::string path, UniqueFd copy, uint32_t page_size);
  Status WriteCopy(uint32_t page, const std::string& bytes, uint64_t hash);

  Source* const source_;
  const std::string path_;
  const std::string copy_path_;
  UniqueFd copy_;
  const uint32_t page_size_;
  std::vector<uint64_t> hashes_;  // of the copied pages; 0: not copied
  uint32_t next_ = 1;             // page that the slice begins with
  int rounds_ = 0;
  std::unique_ptr<SegmentWriter> writer_;
  SegmentHeader header_;
  SegmentTrailer trailer_;
  int64_t time_ = 0;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SNAPSHOT_H_

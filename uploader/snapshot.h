// Makes a snapshot of a live database, or the difference to a state that the replica has, without keeping the WAL from
// being restarted.
//
// Compressing a database takes seconds a gigabyte; a read mark held so long would let a busy writer's WAL grow by
// gigabytes. So the pages are copied a slice at a time and without any read mark, each as the page table says it is.
// One that reads otherwise has been changed by a commit that is not captured yet; what is captured meanwhile goes into
// the copy as well (Take). So after one round and a capture the copy is the table's state, however fast the writers
// are, and is frozen there and compressed in slices while capture goes on. Only pages that even several rounds do not
// read as the table says need a read view, which tells a page that is never still from one that no commit made so.
//
// Costs a temporary file of the size of these pages. Leader's thread only. Memory: 8 bytes a page and the segment
// writer's.
#ifndef LIBREPLICA_UPLOADER_SNAPSHOT_H_
#define LIBREPLICA_UPLOADER_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/status.h"
#include "uploader/encoder.h"
#include "uploader/page_table.h"
#include "uploader/segment_writer.h"
#include "uploader/source.h"

namespace replica {

class SnapshotBuilder {
 public:
  // The copy is `path` + ".copy"; the segment will be `path`. `known`: pages that are as in there are left out; null:
  // none. It outlives the builder, unchanged.
  static Result<std::unique_ptr<SnapshotBuilder>> Create(Source* source, const std::string& path, uint32_t page_size,
                                                         const PageTable* known);
  ~SnapshotBuilder();
  SnapshotBuilder(const SnapshotBuilder&) = delete;
  SnapshotBuilder& operator=(const SnapshotBuilder&) = delete;

  // Copies a slice. True when the round is over: capture, then either begin another round or freeze.
  Result<bool> CopySlice(const PageTable& table);
  // Until it is frozen: what a batch changed, which brings a table along to the state that the copy is to have.
  Status Take(BatchEncoder* batch);
  // Pages whose copy is not what `table` says.
  uint32_t Differing(const PageTable& table) const;
  // True when the pages that differ must be taken from a read view.
  bool NeedsView() const { return rounds_ >= kMostRounds; }

  // Ends the copy: at the source's position, whose state `table` is, when no page differs; else within a read view of
  // that state, from which the pages are taken that still differ. kCorrupt when the database does not read as the table
  // says. `header` and `trailer` are the segment's, whole. `time` is that of the commit that it shows.
  Status Freeze(const PageTable& table, const SegmentHeader& header, const SegmentTrailer& trailer, int64_t time,
                int level);
  bool frozen() const { return writer_ != nullptr; }
  // Pages that the frozen copy has, ascending, and their hashes.
  const std::vector<uint32_t>& pages() const { return pages_; }
  uint64_t HashOf(uint32_t page) const { return hashes_[page - 1]; }
  // Compresses a slice of the frozen copy. True when the segment is finished: take it with Finish.
  Result<bool> EncodeSlice();
  Result<EncodedSegment> Finish();

 private:
  static constexpr int kMostRounds = 8;

  SnapshotBuilder(Source* source, std::string path, UniqueFd copy, uint32_t page_size, const PageTable* known);
  // True for a page that belongs into the segment and is not in the copy as `table` says.
  bool IsDue(const PageTable& table, uint32_t page) const;
  // True for a page that belongs into the segment.
  bool Belongs(const PageTable& table, uint32_t page) const;
  Status WriteCopy(uint32_t page, const uint8_t* data, uint64_t hash);

  Source* const source_;
  const std::string path_;
  const std::string copy_path_;
  UniqueFd copy_;
  const uint32_t page_size_;
  const PageTable* const known_;
  std::vector<uint64_t> hashes_;  // of the copied pages; 0: not copied
  std::vector<uint32_t> pages_;
  uint32_t next_ = 1;   // page that the slice begins with
  size_t encoded_ = 0;  // of pages_
  int rounds_ = 0;
  std::unique_ptr<SegmentWriter> writer_;
  SegmentTrailer trailer_;
  int64_t time_ = 0;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_SNAPSHOT_H_

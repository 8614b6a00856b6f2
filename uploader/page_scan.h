// The hash of every page of a live database, read without keeping its WAL from being restarted.
//
// A read mark held for as long as reading a database takes would let a busy writer's WAL grow without a bound. So the
// pages are read a slice at a time without one, each as SQLite would read it then. What is read of a page that is
// being changed meanwhile, or half of it, does not count, for its commit comes later: either the commits are followed
// from before the first page was read (Follow), or the pages that are not as captured are read again, the last few in a
// short read view (ReadDiffering). Leader's thread only. Memory: 8 bytes a page.
#ifndef LIBREPLICA_UPLOADER_PAGE_SCAN_H_
#define LIBREPLICA_UPLOADER_PAGE_SCAN_H_

#include <cstdint>
#include <string>

#include "base/status.h"
#include "uploader/encoder.h"
#include "uploader/page_table.h"
#include "uploader/snapshot.h"
#include "uploader/source.h"

namespace replica {

class PageScan {
 public:
  PageScan(Source* source, const EncodeOptions& options);

  // Begins at the state of the source's read view, which ends after it: the position is set there, and all commits from
  // there on must be kept (Source::ResetJournal, and `active` in the control block).
  void BeginAtView();
  // Reads a slice of pages 1..`pages`. True when all are read.
  Result<bool> ReadSlice(uint32_t pages);
  // Brings the hashes along with what is committed by now, or up to `until`; true when that is all. All pages read, and
  // then followed to the end, they are those of the source's position. kConflict: commits were lost, and the scan with
  // them. `copy`, if any, takes what the commits changed.
  Result<bool> Follow(const WalPosition* until, SnapshotBuilder* copy = nullptr);
  // From BeginAtView to there, in one go. kInterrupted when it is called off.
  Status ReadAll();

  // Reads the pages again that are not what `table` says, from the read view if there is one; returns how many still
  // are not.
  Result<uint32_t> ReadDiffering(const PageTable& table, bool in_view);

  PageTable& table() { return table_; }

 private:
  Source* const source_;
  const EncodeOptions options_;
  PageTable table_;
  uint32_t next_ = 1;  // page that the slice begins with
  std::string page_;
};

}  // namespace replica

#endif  // LIBREPLICA_UPLOADER_PAGE_SCAN_H_

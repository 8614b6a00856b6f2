#include "uploader/encoder.h"

#include <algorithm>
#include <unordered_set>

namespace replica {
namespace {

// One version of a page: where its bytes are and which commit made it.
struct Version {
  uint32_t page;
  uint32_t commit;
  uint64_t frame;  // index into the batch's frames; from batch.frames.size() on: into the added pages
  uint64_t hash;
};

class BatchEncoder {
 public:
  BatchEncoder(const Batch& batch, Source* source, PageTable* table)
      : batch_(batch), source_(source), table_(table), size_(batch.page_size) {}

  Result<EncodedSegment> Run(SegmentHeader header, int64_t now, const EncodeOptions& options,
                             const std::string& path) {
    // A batch of one commit keeps every version as it is.
    const bool folded = batch_.commits.size() > 1 && batch_.raw_bytes() > options.fold_above;
    header.kind = SegmentKind::kLog;
    header.flags = folded ? kSegmentFolded : 0;
    SegmentTrailer trailer;
    trailer.max_txid = header.min_txid + batch_.commits.size() - 1;
    trailer.checksum_before = table_->checksum();
    trailer.pages_before = table_->pages();
    trailer.created = now;
    trailer.wal = batch_.end;

    REPLICA_TRY(GatherVersions(folded));
    NoteBases();
    std::vector<CommitEntry> commits;
    REPLICA_TRY(folded ? HashFolded(&commits) : HashAll(&commits));
    trailer.checksum_after = table_->checksum();
    trailer.pages_after = table_->pages();

    SegmentWriter::Options writer_options;
    writer_options.level = options.level;
    REPLICA_ASSIGN(auto writer, SegmentWriter::Create(path, header, writer_options));
    std::string base(size_, '\0');
    size_t next_base = 0;
    uint32_t page = 0;
    for (const Version& v : versions_) {
      const uint8_t* base_bytes = nullptr;
      if (v.page != page) {
        page = v.page;
        while (next_base < bases_.size() && bases_[next_base].first < page) next_base++;
        if (options.prefix && !folded && next_base < bases_.size() &&
            bases_[next_base].first == page &&
            source_->ReadBase(page, bases_[next_base].second,
                              reinterpret_cast<uint8_t*>(base.data())))
          base_bytes = reinterpret_cast<const uint8_t*>(base.data());
      }
      REPLICA_ASSIGN(const uint8_t* data, Page(v.frame));
      REPLICA_TRY(writer->Add(v.page, header.min_txid + v.commit, data, base_bytes, v.hash));
    }
    return writer->Finish(trailer, std::move(commits));
  }

 private:
  Result<const uint8_t*> Page(uint64_t frame) {
    if (frame < batch_.frames.size()) return batch_.Page(frame, &scratch_);
    return reinterpret_cast<const uint8_t*>(added_.data()) + (frame - batch_.frames.size()) * size_;
  }

  // The last version of each page in each commit (of all of them when folded), sorted by page, then commit.
  Status GatherVersions(bool folded) {
    uint32_t pages = table_->pages();
    uint64_t added = batch_.frames.size();
    for (uint32_t c = 0; c < batch_.commits.size(); c++) {
      const BatchCommit& commit = batch_.commits[c];
      for (size_t i = commit.first; i < commit.first + commit.count; i++) {
        // Spilled frames may be of pages that the transaction cut off before it ended.
        if (batch_.frames[i].page <= commit.pages)
          versions_.push_back({batch_.frames[i].page, c, i, 0});
      }
      if (commit.pages > pages) REPLICA_TRY(AddNewPages(c, pages + 1, commit.pages, &added));
      pages = commit.pages;
    }
    std::stable_sort(versions_.begin(), versions_.end(), [](const Version& a, const Version& b) {
      return a.page != b.page ? a.page < b.page : a.commit < b.commit;
    });
    // Frames of one commit stayed in order: of equal neighbours the last one counts.
    size_t kept = 0;
    for (size_t i = 0; i < versions_.size(); i++) {
      const bool superseded = i + 1 < versions_.size() &&
                              versions_[i + 1].page == versions_[i].page &&
                              (folded || versions_[i + 1].commit == versions_[i].commit);
      if (superseded) continue;
      if (folded && versions_[i].page > batch_.commits.back().pages) continue;
      versions_[kept++] = versions_[i];
    }
    versions_.resize(kept);
    return Ok();
  }

  // A page that a commit added without writing a frame for it (SQLite leaves free pages unwritten) has the content that
  // SQLite would read: what an older frame or the file holds there, else zeros.
  Status AddNewPages(uint32_t commit, uint32_t first, uint32_t last, uint64_t* added) {
    const BatchCommit& c = batch_.commits[commit];
    std::unordered_set<uint32_t> written;
    for (size_t i = c.first; i < c.first + c.count; i++) written.insert(batch_.frames[i].page);
    for (uint32_t page = first; page <= last; page++) {
      if (page == LockPage(size_) || written.count(page) != 0) continue;
      const size_t at = added_.size();
      added_.resize(at + size_);
      REPLICA_TRY(source_->ReadCurrent(page, reinterpret_cast<uint8_t*>(added_.data()) + at));
      versions_.push_back({page, commit, (*added)++, 0});
    }
    return Ok();
  }

  // The hashes of the pages' versions before the batch.
  void NoteBases() {
    for (const Version& v : versions_)
      if (v.page <= table_->pages() && (bases_.empty() || bases_.back().first != v.page))
        bases_.emplace_back(v.page, table_->Get(v.page));
  }

  Status HashAll(std::vector<CommitEntry>* commits) {
    // Commits in order need the versions by commit; the segment needs them by page.
    std::vector<uint32_t> order(versions_.size());
    for (uint32_t i = 0; i < order.size(); i++) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return versions_[a].commit < versions_[b].commit;
    });
    size_t next = 0;
    for (uint32_t c = 0; c < batch_.commits.size(); c++) {
      table_->Resize(batch_.commits[c].pages);
      for (; next < order.size() && versions_[order[next]].commit == c; next++) {
        Version& v = versions_[order[next]];
        REPLICA_TRY(Hash(&v));
      }
      commits->push_back({batch_.commits[c].time, batch_.commits[c].pages, table_->checksum()});
    }
    return Ok();
  }

  Status HashFolded(std::vector<CommitEntry>* commits) {
    uint32_t least = table_->pages();
    for (const BatchCommit& commit : batch_.commits) least = std::min(least, commit.pages);
    table_->Resize(least);
    const BatchCommit& last = batch_.commits.back();
    table_->Resize(last.pages);
    for (Version& v : versions_) {
      v.commit = static_cast<uint32_t>(batch_.commits.size() - 1);
      REPLICA_TRY(Hash(&v));
    }
    commits->push_back({last.time, last.pages, table_->checksum()});
    return Ok();
  }

  Status Hash(Version* v) {
    REPLICA_ASSIGN(const uint8_t* data, Page(v->frame));
    v->hash = PageHash(data, size_, v->page);
    table_->Set(v->page, v->hash);
    return Ok();
  }

  const Batch& batch_;
  Source* const source_;
  PageTable* const table_;
  const uint32_t size_;
  std::vector<Version> versions_;
  std::vector<std::pair<uint32_t, uint64_t>> bases_;
  std::string added_;
  std::string scratch_;
};

}  // namespace

Result<EncodedSegment> EncodeBatch(const Batch& batch, Source* source, SegmentHeader header,
                                   int64_t now, const EncodeOptions& options,
                                   const std::string& path, PageTable* table) {
  return BatchEncoder(batch, source, table).Run(header, now, options, path);
}

Result<EncodedSegment> EncodeSnapshot(Source* source, SegmentHeader header, int64_t now,
                                      const EncodeOptions& options, const std::string& path,
                                      PageTable* table) {
  const uint32_t pages = source->view_pages();
  const uint32_t lock_page = LockPage(header.page_size);
  const bool compare = table->pages() != 0;
  const Status differs(Code::kCorrupt,
                       "the database differs from the state that its commits lead to; a resync will send the difference");
  if (compare && pages != table->pages()) return differs;
  header.kind = SegmentKind::kSnapshot;
  header.flags = kSegmentFolded | kSegmentPageHashes;
  SegmentWriter::Options writer_options;
  writer_options.level = options.level;
  REPLICA_ASSIGN(auto writer, SegmentWriter::Create(path, header, writer_options));
  std::string page_bytes(header.page_size, '\0');
  auto* data = reinterpret_cast<uint8_t*>(page_bytes.data());
  if (!compare) table->Resize(pages);
  for (uint32_t page = 1; page <= pages; page++) {
    if (page == lock_page) continue;
    REPLICA_TRY(source->ReadView(page, data));
    const uint64_t hash = PageHash(data, header.page_size, page);
    if (compare && table->Get(page) != hash) return differs;
    if (!compare) table->Set(page, hash);
    REPLICA_TRY(writer->Add(page, header.min_txid, data, nullptr, hash));
  }
  SegmentTrailer trailer;
  trailer.max_txid = header.min_txid;
  trailer.checksum_before = trailer.checksum_after = table->checksum();
  trailer.pages_before = trailer.pages_after = pages;
  trailer.created = now;
  trailer.wal = source->view_position();
  return writer->Finish(trailer, {{now, pages, table->checksum()}});
}

Result<EncodedSegment> EncodeDifference(Source* source, SegmentHeader header,
                                        uint64_t checksum_before, int64_t now,
                                        const EncodeOptions& options, const std::string& path,
                                        PageTable* table) {
  const uint32_t pages = source->view_pages();
  const uint32_t pages_before = table->pages();
  const uint32_t lock_page = LockPage(header.page_size);
  header.kind = SegmentKind::kLog;
  header.flags = kSegmentFolded | kSegmentResync | kSegmentPageHashes;
  SegmentWriter::Options writer_options;
  writer_options.level = options.level;
  REPLICA_ASSIGN(auto writer, SegmentWriter::Create(path, header, writer_options));
  std::string page_bytes(header.page_size, '\0');
  auto* data = reinterpret_cast<uint8_t*>(page_bytes.data());
  table->Resize(pages);
  bool any = pages != pages_before;
  for (uint32_t page = 1; page <= pages; page++) {
    if (page == lock_page) continue;
    REPLICA_TRY(source->ReadView(page, data));
    const uint64_t hash = PageHash(data, header.page_size, page);
    // A page that the replica does not have yet is sent even when it is all zeros.
    if (page <= pages_before && table->Get(page) == hash) continue;
    any = true;
    table->Set(page, hash);
    REPLICA_TRY(writer->Add(page, header.min_txid, data, nullptr, hash));
  }
  if (!any) return EncodedSegment{};
  SegmentTrailer trailer;
  trailer.max_txid = header.min_txid;
  trailer.checksum_before = checksum_before;
  trailer.checksum_after = table->checksum();
  trailer.pages_before = pages_before;
  trailer.pages_after = pages;
  trailer.created = now;
  trailer.wal = source->view_position();
  return writer->Finish(trailer, {{now, pages, table->checksum()}});
}

Result<PageTable> ScanView(Source* source) {
  const uint32_t size = source->page_size();
  PageTable table(size);
  table.Resize(source->view_pages());
  std::string page_bytes(size, '\0');
  auto* data = reinterpret_cast<uint8_t*>(page_bytes.data());
  for (uint32_t page = 1; page <= table.pages(); page++) {
    if (page == LockPage(size)) continue;
    REPLICA_TRY(source->ReadView(page, data));
    table.Set(page, PageHash(data, size, page));
  }
  return table;
}

}  // namespace replica

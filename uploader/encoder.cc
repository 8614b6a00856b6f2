#include "uploader/encoder.h"

#include <algorithm>
#include <unordered_set>

namespace replica {
namespace {

constexpr size_t kHashesAbove = 100000;  // versions

}  // namespace

BatchEncoder::BatchEncoder(const Batch& batch, Source* source, PageTable* table, const SegmentHeader& header,
                           int64_t now, const EncodeOptions& options)
    : batch_(batch),
      source_(source),
      table_(table),
      options_(options),
      size_(batch.page_size),
      // A batch of one commit keeps every version as it is.
      folded_(batch.commits.size() > 1 && batch.raw_bytes() > options.fold_above),
      header_(header) {
  header_.kind = SegmentKind::kLog;
  header_.flags = folded_ ? kSegmentFolded : 0;
  trailer_.max_txid = header.min_txid + batch.commits.size() - 1;
  trailer_.checksum_before = table->checksum();
  trailer_.pages_before = table->pages();
  trailer_.created = now;
  trailer_.wal = batch.end;
}

Status BatchEncoder::Prepare() {
  REPLICA_TRY(GatherVersions());
  NoteBases();
  REPLICA_TRY(folded_ ? HashFolded() : HashAll());
  trailer_.checksum_after = table_->checksum();
  trailer_.pages_after = table_->pages();
  return Ok();
}

Status BatchEncoder::Newest(const std::function<Status(uint32_t, const uint8_t*, uint64_t)>& each) {
  for (size_t i = 0; i < versions_.size(); i++) {
    if (i + 1 < versions_.size() && versions_[i + 1].page == versions_[i].page) continue;
    REPLICA_ASSIGN(const uint8_t* data, Page(versions_[i].frame));
    REPLICA_TRY(each(versions_[i].page, data, versions_[i].hash));
  }
  return Ok();
}

Result<EncodedSegment> BatchEncoder::Write(const std::string& path) {
  SegmentWriter::Options writer_options;
  writer_options.level = options_.level;
  // The index of very many pages could shrink to less than MetaLimit lets a reader believe; hashes keep it honest.
  if (versions_.size() > kHashesAbove) header_.flags |= kSegmentPageHashes;
  REPLICA_ASSIGN(auto writer, SegmentWriter::Create(path, header_, writer_options));
  std::string base(size_, '\0');
  size_t next_base = 0;
  uint32_t page = 0;
  for (const Version& v : versions_) {
    const uint8_t* base_bytes = nullptr;
    if (v.page != page) {
      page = v.page;
      while (next_base < bases_.size() && bases_[next_base].first < page) next_base++;
      if (options_.prefix && !folded_ && next_base < bases_.size() && bases_[next_base].first == page &&
          source_->ReadBase(page, bases_[next_base].second, reinterpret_cast<uint8_t*>(base.data())))
        base_bytes = reinterpret_cast<const uint8_t*>(base.data());
    }
    REPLICA_ASSIGN(const uint8_t* data, Page(v.frame));
    REPLICA_TRY(writer->Add(v.page, header_.min_txid + v.commit, data, base_bytes, v.hash));
  }
  return writer->Finish(trailer_, commits_);
}

Result<const uint8_t*> BatchEncoder::Page(uint64_t frame) {
  if (frame < batch_.frames.size()) return batch_.Page(frame, &scratch_);
  return reinterpret_cast<const uint8_t*>(added_.data()) + (frame - batch_.frames.size()) * size_;
}

// The last version of each page in each commit (of all of them when folded), sorted by page, then commit.
Status BatchEncoder::GatherVersions() {
  uint32_t pages = table_->pages();
  uint64_t added = batch_.frames.size();
  for (uint32_t c = 0; c < batch_.commits.size(); c++) {
    const BatchCommit& commit = batch_.commits[c];
    for (size_t i = commit.first; i < commit.first + commit.count; i++) {
      // Spilled frames may be of pages that the transaction cut off before it ended.
      if (batch_.frames[i].page <= commit.pages) versions_.push_back({batch_.frames[i].page, c, i, 0});
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
    const bool superseded = i + 1 < versions_.size() && versions_[i + 1].page == versions_[i].page &&
                            (folded_ || versions_[i + 1].commit == versions_[i].commit);
    if (superseded) continue;
    if (folded_ && versions_[i].page > batch_.commits.back().pages) continue;
    versions_[kept++] = versions_[i];
  }
  versions_.resize(kept);
  return Ok();
}

// A page that a commit added without writing a frame for it (SQLite leaves free pages unwritten) has the content that
// SQLite would read: what an older frame or the file holds there, else zeros.
Status BatchEncoder::AddNewPages(uint32_t commit, uint32_t first, uint32_t last, uint64_t* added) {
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
void BatchEncoder::NoteBases() {
  for (const Version& v : versions_)
    if (v.page <= table_->pages() && (bases_.empty() || bases_.back().first != v.page))
      bases_.emplace_back(v.page, table_->Get(v.page));
}

Status BatchEncoder::HashAll() {
  // Commits in order need the versions by commit; the segment needs them by page.
  std::vector<uint32_t> order(versions_.size());
  for (uint32_t i = 0; i < order.size(); i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return versions_[a].commit < versions_[b].commit; });
  size_t next = 0;
  for (uint32_t c = 0; c < batch_.commits.size(); c++) {
    table_->Resize(batch_.commits[c].pages);
    for (; next < order.size() && versions_[order[next]].commit == c; next++) {
      Version& v = versions_[order[next]];
      REPLICA_TRY(Hash(&v));
    }
    commits_.push_back({batch_.commits[c].time, batch_.commits[c].pages, table_->checksum()});
  }
  return Ok();
}

Status BatchEncoder::HashFolded() {
  uint32_t least = table_->pages();
  for (const BatchCommit& commit : batch_.commits) least = std::min(least, commit.pages);
  table_->Resize(least);
  const BatchCommit& last = batch_.commits.back();
  table_->Resize(last.pages);
  for (Version& v : versions_) {
    v.commit = static_cast<uint32_t>(batch_.commits.size() - 1);
    REPLICA_TRY(Hash(&v));
  }
  commits_.push_back({last.time, last.pages, table_->checksum()});
  return Ok();
}

Status BatchEncoder::Hash(Version* v) {
  REPLICA_ASSIGN(const uint8_t* data, Page(v->frame));
  v->hash = PageHash(data, size_, v->page);
  table_->Set(v->page, v->hash);
  return Ok();
}

}  // namespace replica

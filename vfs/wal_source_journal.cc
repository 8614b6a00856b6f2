// Reading back the journal: frames that a gate, or the leader itself, copied out of the WAL.
#include <fcntl.h>

#include <algorithm>

#include "vfs/wal_reading.h"
#include "vfs/wal_source.h"

namespace replica {

Status WalSource::ReadJournal(const std::string& path, Reading* r, bool* whole) {
  *whole = false;
  REPLICA_ASSIGN(UniqueFd opened, OpenOwnFile(path, O_RDONLY));
  auto fd = std::make_shared<UniqueFd>(std::move(opened));
  REPLICA_ASSIGN(uint64_t size, FileSize(path));
  const auto file = static_cast<int32_t>(r->batch.files.size());
  r->batch.files.emplace_back(path, fd);
  const uint64_t frame_size = page_size_ + kFrameHeaderSize;
  std::string piece;
  for (uint64_t at = 0; at + kJournalChunkSize <= size;) {
    char head[kJournalChunkSize];
    JournalChunk chunk;
    REPLICA_ASSIGN(size_t n, ReadAt(fd->get(), head, sizeof head, at, path));
    // A process that died while it appended leaves a chunk that is not whole; `durable` never counted on it.
    if (n != sizeof head || !DecodeChunk({head, sizeof head}, &chunk)) break;
    if (at + kJournalChunkSize + chunk.bytes() > size || chunk.page_size != page_size_) break;
    const uint64_t frames_at = at + kJournalChunkSize;
    at = frames_at + chunk.bytes();
    if (chunk.salts != r->at.salts) {
      // An older WAL's chunk is behind us already when it does not start where we stand.
      const bool follows = chunk.first == 1 || IsIn(r->at, chunk.chain, chunk.ordinal);
      if (!follows || !Enter(chunk.salts, chunk.chain, chunk.ordinal, chunk.previous_end, r)) continue;
    }
    const uint32_t last = chunk.first + chunk.count - 1;
    if (last <= r->at.frame) continue;
    if (chunk.first > r->at.frame + 1) return Lost("the journal lacks frames");
    if (verify_journal_) {
      // An earlier leader's journal, perhaps of before a crash of the machine: each frame must continue the checksum.
      uint32_t sum[2] = {r->at.checksum[0], r->at.checksum[1]};
      bool known = r->at.frame != 0;
      for (uint32_t i = r->at.frame + 1; i <= last; i++) {
        piece.resize(frame_size);
        REPLICA_ASSIGN(size_t got,
                       ReadAt(fd->get(), piece.data(), frame_size, frames_at + (i - chunk.first) * frame_size, path));
        if (got != frame_size) return Lost("the journal is damaged");
        const auto* bytes = reinterpret_cast<const uint8_t*>(piece.data());
        const FrameHeader h = ParseFrameHeader(bytes);
        if (known && h.salts != WalSalts{}) {
          uint32_t next[2];
          FrameChecksum(false, bytes, page_size_, sum, next);
          if (next[0] != h.checksum[0] || next[1] != h.checksum[1]) return Lost("the journal is damaged");
        }
        known = h.salts != WalSalts{};
        sum[0] = h.checksum[0];
        sum[1] = h.checksum[1];
      }
    }
    for (uint32_t i = r->at.frame + 1; i <= last; i++) {
      if (r->Reached()) return Ok();
      const uint64_t offset = frames_at + (i - chunk.first) * frame_size;
      uint8_t bytes[kFrameHeaderSize];
      REPLICA_ASSIGN(size_t got, ReadAt(fd->get(), bytes, sizeof bytes, offset, path));
      const FrameHeader h = ParseFrameHeader(bytes);
      if (got != sizeof bytes || !BelongsTo(h, chunk.salts)) return Lost("the journal is damaged");
      Batch::Frame frame;
      frame.page = h.page;
      frame.file = file;
      frame.offset = offset + kFrameHeaderSize;
      REPLICA_TRY(AddFrame(h, frame, r));
    }
    if (chunk.at_end && r->open.empty()) {
      r->batch.end_changes = chunk.changes;
      r->batch.end_changes_known = true;
    }
  }
  *whole = true;
  return Ok();
}

Status WalSource::ReadJournals(Reading* r) {
  REPLICA_ASSIGN(auto journals, database_->RotateJournal());
  for (const std::string& path : journals) {
    if (std::find(r->batch.journals.begin(), r->batch.journals.end(), path) != r->batch.journals.end()) continue;
    bool whole = false;
    REPLICA_TRY(ReadJournal(path, r, &whole));
    if (!whole) break;
    r->batch.journals.push_back(path);
  }
  return Ok();
}

}  // namespace replica

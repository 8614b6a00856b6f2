#include "uploader/replica.h"

#include <algorithm>
#include <system_error>

#include "base/call_off.h"

namespace replica {
namespace {

constexpr uint64_t kReadAhead = 8 << 20;

// The hexadecimal number that a key ends with, behind `prefix`.
bool NumberAfter(const std::string& key, const std::string& prefix, uint64_t* number) {
  return key.size() == prefix.size() + 16 && key.compare(0, prefix.size(), prefix) == 0 &&
         ParseHex16(std::string_view(key).substr(prefix.size()), number);
}

}  // namespace

std::string GenerationPrefix(const Id& generation) {
  return HexEncode(generation) + "/";
}

std::string LogKey(const Id& generation, uint64_t sequence) {
  return GenerationPrefix(generation) + "log/" + Hex16(sequence);
}

std::string SnapshotKey(const Id& generation, uint64_t txid) {
  return GenerationPrefix(generation) + "snapshot/" + Hex16(txid);
}

Result<std::vector<Id>> ListGenerations(Store* store) {
  REPLICA_ASSIGN(Listing listing, store->List("", "", true));
  std::vector<Id> generations;
  for (const std::string& folder : listing.folders) {
    Id id;
    if (ParseId(std::string_view(folder).substr(0, folder.size() - 1), &id)) generations.push_back(id);
  }
  std::sort(generations.begin(), generations.end());
  return generations;
}

Result<std::vector<LogObject>> ListLog(Store* store, const Id& generation, uint64_t after,
                                       std::optional<SegmentHeader>* end) {
  const std::string prefix = GenerationPrefix(generation) + "log/";
  REPLICA_ASSIGN(Listing listing, store->List(prefix, after == 0 ? "" : LogKey(generation, after), false));
  std::vector<LogObject> log;
  for (const ObjectInfo& object : listing.objects) {
    LogObject entry;
    entry.size = object.size;
    if (NumberAfter(object.key, prefix, &entry.sequence)) log.push_back(entry);
  }
  // No segment is as small. What it is, only its content can tell: a damaged segment must not look like an end.
  if (!log.empty() && log.back().size == kEndSize) {
    REPLICA_ASSIGN(const Segment last, ReadSegmentEnds(store, LogKey(generation, log.back().sequence), kEndSize));
    if (last.header.kind == SegmentKind::kEnd && last.header.generation == generation &&
        last.header.sequence == log.back().sequence) {
      log.pop_back();
      if (end != nullptr) *end = last.header;
    }
  }
  return log;
}

Result<std::vector<SnapshotObject>> ListSnapshots(Store* store, const Id& generation) {
  const std::string prefix = GenerationPrefix(generation) + "snapshot/";
  REPLICA_ASSIGN(Listing listing, store->List(prefix, "", false));
  std::vector<SnapshotObject> snapshots;
  for (const ObjectInfo& object : listing.objects) {
    SnapshotObject entry;
    entry.size = object.size;
    if (NumberAfter(object.key, prefix, &entry.txid)) snapshots.push_back(entry);
  }
  return snapshots;
}

StoreBytes::StoreBytes(Store* store, std::string key, uint64_t size)
    : store_(store), key_(std::move(key)), name_(ObjectUrl(*store, key_)), size_(size) {}

uint64_t StoreBytes::PieceSize(uint64_t at) const {
  return at < size_ ? std::min(kReadAhead, size_ - at) : 0;
}

void StoreBytes::FetchAhead(uint64_t at) {
  if (PieceSize(at) == 0) return;
  try {
    next_ = std::async(std::launch::async,
                       [store = store_, key = key_, at, n = PieceSize(at), question = CallOff::Current()] {
                         const CallOff call_off(question);
                         return store->Get(key, at, n);
                       });
    next_at_ = at;
  } catch (const std::system_error&) {
    next_ = {};  // no thread to be had: it is fetched when it is needed
  }
}

void StoreBytes::Prefetch() {
  FetchAhead(0);
}

Result<std::string> StoreBytes::Read(uint64_t offset, uint64_t size) {
  const Status too_short(Code::kCorrupt, name_ + ": shorter than its contents say (truncated?)");
  if (offset > size_ || size > size_ - offset) return too_short;
  auto inside = [&] { return offset >= piece_at_ && offset + size <= piece_at_ + piece_.size(); };
  if (offset == 0 && !inside()) {
    piece_.clear();
    piece_at_ = 0;
  }
  if (!inside()) {
    const uint64_t end = piece_at_ + piece_.size();
    if (offset < piece_at_ || offset > end || size > kReadAhead) {
      // Trailer and index of a large object: by themselves, without losing the place in the sequence of blocks.
      REPLICA_ASSIGN(std::string bytes, store_->Get(key_, offset, size));
      if (bytes.size() != size) return too_short;
      return bytes;
    }
    // A block may lie across the edge of two pieces.
    const bool fetched = next_.valid() && next_at_ == end;
    auto more = fetched ? next_.get() : store_->Get(key_, end, PieceSize(end));
    if (!more.ok()) return more.status();
    piece_ = piece_.substr(offset - piece_at_) + *more;
    piece_at_ = offset;
    if (!inside()) {
      piece_.clear();
      return too_short;
    }
    FetchAhead(piece_at_ + piece_.size());
  }
  return piece_.substr(offset - piece_at_, size);
}

Result<Segment> ReadSegmentEnds(Store* store, const std::string& key, uint64_t size) {
  const std::string name = ObjectUrl(*store, key);
  if (size < kSegmentHeaderSize + kSegmentTrailerSize)
    return Status(Code::kCorrupt, name + ": damaged segment: only " + std::to_string(size) + " bytes (truncated?)");
  REPLICA_ASSIGN(std::string head, store->Get(key, 0, kSegmentHeaderSize));
  REPLICA_ASSIGN(std::string tail, store->Get(key, size - kSegmentTrailerSize, kSegmentTrailerSize));
  Segment segment;
  auto header = DecodeHeader(head);
  if (!header.ok()) return header.status().In(name);
  auto trailer = DecodeTrailer(tail);
  if (!trailer.ok()) return trailer.status().In(name);
  segment.header = *header;
  segment.trailer = *trailer;
  return segment;
}

Status CheckStored(Store* store, const Id& generation, uint64_t snapshot_txid, uint64_t sequence) {
  const std::string key = SnapshotKey(generation, snapshot_txid);
  REPLICA_ASSIGN(const uint64_t size, store->Size(key));
  auto snapshot = ReadSegmentEnds(store, key, size);
  // Not what was stored. A listing that cannot be read is no such thing: a proxy may have answered it.
  if (snapshot.status().code() == Code::kCorrupt) return {Code::kNotFound, snapshot.status().message()};
  REPLICA_TRY(snapshot.status());
  if (snapshot->header.sequence > sequence || snapshot->trailer.max_txid != snapshot_txid)
    return {Code::kNotFound, ObjectUrl(*store, key) + ": damaged segment: its header is not what was stored"};
  REPLICA_ASSIGN(const auto log, ListLog(store, generation, snapshot->header.sequence, nullptr));
  uint64_t next = snapshot->header.sequence + 1;
  for (const LogObject& entry : log) {
    // A store whose listings are late is asked for the object itself.
    for (; next < entry.sequence && next <= sequence; next++)
      REPLICA_TRY(store->Size(LogKey(generation, next)).status());
    next = entry.sequence + 1;
  }
  for (; next <= sequence; next++) REPLICA_TRY(store->Size(LogKey(generation, next)).status());
  return Ok();
}

Result<ReplicaHead> ReadHead(Store* store, const Id& generation) {
  ReplicaHead head;
  REPLICA_ASSIGN(auto snapshots, ListSnapshots(store, generation));
  uint64_t after = 0;
  if (!snapshots.empty()) {
    const SnapshotObject& newest = snapshots.back();
    REPLICA_ASSIGN(head.last, ReadSegmentEnds(store, SnapshotKey(generation, newest.txid), newest.size));
    head.any = true;
    head.sequence = head.last.header.sequence;
    head.snapshot_txid = head.txid = head.last.trailer.max_txid;
    head.snapshot_bytes = newest.size;
    after = head.sequence;
  }
  REPLICA_ASSIGN(auto log, ListLog(store, generation, after, &head.end));
  for (const LogObject& entry : log) head.log_bytes += entry.size;
  if (!log.empty()) {
    const LogObject& newest = log.back();
    REPLICA_ASSIGN(head.last, ReadSegmentEnds(store, LogKey(generation, newest.sequence), newest.size));
    head.any = true;
    head.sequence = newest.sequence;
    head.txid = head.last.trailer.max_txid;
  }
  return head;
}

}  // namespace replica

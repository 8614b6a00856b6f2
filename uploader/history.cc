#include "uploader/history.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <system_error>
#include <utility>

#include "base/call_off.h"
#include "uploader/replica.h"

namespace replica {
namespace {

constexpr size_t kParallel = 8;  // objects read at the same time

Status ReadEntry(Store* store, HistoryEntry* entry) {
  StoreBytes bytes(store, entry->key, entry->bytes);
  REPLICA_ASSIGN(auto reader, SegmentReader::Open(&bytes));
  const Segment& s = reader->segment();
  entry->folded = s.folded();
  entry->sequence = s.header.sequence;
  entry->min_txid = s.header.min_txid;
  entry->max_txid = s.trailer.max_txid;
  entry->first_time = s.commits.front().time;
  entry->last_time = s.commits.back().time;
  entry->pages = s.trailer.pages_after;
  return Ok();
}

}  // namespace

Result<History> HistoryReader::Read(size_t most_log) {
  History history;
  std::vector<HistoryEntry> entries;
  auto add = [&](bool snapshot, const Id& generation, std::string key, uint64_t size) {
    HistoryEntry entry;
    entry.snapshot = snapshot;
    entry.generation = generation;
    entry.bytes = size;
    entry.key = std::move(key);
    entries.push_back(std::move(entry));
  };
  REPLICA_ASSIGN(auto generations, ListGenerations(store_));
  history.generations = generations.size();
  for (const Id& generation : generations) {
    REPLICA_ASSIGN(auto snapshots, ListSnapshots(store_, generation));
    REPLICA_ASSIGN(auto log, ListLog(store_, generation, 0));
    for (const SnapshotObject& s : snapshots) {
      history.bytes += s.size;
      add(true, generation, SnapshotKey(generation, s.txid), s.size);
    }
    const size_t take = most_log == 0 ? log.size() : std::min(log.size(), std::max<size_t>(most_log, 2));
    for (size_t i = 0; i < take; i++) {
      const LogObject& l = log[take == 1 ? 0 : i * (log.size() - 1) / (take - 1)];
      add(false, generation, LogKey(generation, l.sequence), l.size);
    }
    for (const LogObject& l : log) history.bytes += l.size;
    for (size_t i = 1; i < log.size(); i++)
      if (log[i].sequence != log[i - 1].sequence + 1)
        history.holes.push_back({generation, log[i - 1].sequence + 1, log[i].sequence - 1});
    history.objects += snapshots.size() + log.size();
    history.sampled = history.sampled || take < log.size();
  }
  REPLICA_TRY(Fetch(&entries));
  const HistoryEntry* before = nullptr;  // the log segment before
  for (const HistoryEntry& entry : entries) {
    if (entry.snapshot) continue;
    if (before != nullptr && before->generation == entry.generation && entry.first_time < before->last_time)
      history.clock_steps.push_back({entry.generation, before->max_txid, before->last_time, entry.first_time});
    before = &entry;
  }
  const HistoryEntry* snapshot = nullptr;  // the first of its generation
  for (const HistoryEntry& entry : entries) {
    if (snapshot != nullptr && snapshot->generation != entry.generation) snapshot = nullptr;
    if (entry.snapshot) {
      if (snapshot == nullptr) snapshot = &entry;
      continue;
    }
    if (snapshot != nullptr && entry.sequence > snapshot->sequence + 1)
      history.holes.push_back({entry.generation, snapshot->sequence + 1, entry.sequence - 1});
    snapshot = nullptr;  // only the first log segment follows on it
  }
  history.entries = std::move(entries);
  return history;
}

Status HistoryReader::Fetch(std::vector<HistoryEntry>* entries) {
  std::vector<HistoryEntry*> unknown;
  for (HistoryEntry& entry : *entries) {
    auto found = known_.find(entry.key);
    if (found == known_.end() || found->second.bytes != entry.bytes) {
      unknown.push_back(&entry);
    } else {
      entry = found->second;
    }
  }
  std::vector<std::future<Status>> work;
  std::atomic<size_t> next{0};
  auto read = [this, &unknown, &next]() -> Status {
    for (size_t i = next++; i < unknown.size(); i = next++) REPLICA_TRY(ReadEntry(store_, unknown[i]));
    return Ok();
  };
  try {
    for (size_t w = 1; w < std::min(kParallel, unknown.size()); w++)
      work.push_back(std::async(std::launch::async, [&read, question = CallOff::Current()]() -> Status {
        const CallOff call_off(question);
        return read();
      }));
  } catch (const std::system_error&) {
    // Fewer threads, or none but this one.
  }
  work.push_back(std::async(std::launch::deferred, read));
  Status status;
  for (auto& w : work) {
    Status one = w.get();
    if (status.ok()) status = one;
  }
  REPLICA_TRY(status);
  for (HistoryEntry* entry : unknown) known_[entry->key] = *entry;
  return Ok();
}

}  // namespace replica

// The chain of WALs, as it is kept in the control block. The verdicts are vfs/wal_chain.h's.
#include <fcntl.h>

#include <algorithm>
#include <ctime>

#include "base/futex.h"
#include "base/hash.h"
#include "vfs/database.h"

namespace replica {
namespace {

constexpr int64_t kLongestTick = 20000000;  // ns
constexpr int kMostLooks = 1000;            // at a wal-index that is being changed
constexpr int kMostTickLooks = 40;          // of half a millisecond: the longest tick is 10 ms

// File times move in ticks (of a few milliseconds): who writes to the file in the tick of its stamp would leave it with
// the same one. Since Linux 6.13 some file systems take a finer time once somebody has looked at the last one: then a
// look is enough. `settled`: whoever writes to the file from now on changes its stamp. `never`: it is not known when
// that will be, on file systems that keep times in hundredths of seconds or whole ones (ext4 with small inodes, exFAT),
// and with a clock that was set back.
struct Tick {
  bool settled = false;
  bool never = false;
};
Tick TickOf(const FileStamp& stamp, bool fine_times) {
  const int64_t unit = TimeUnit(stamp);
  if (stamp == FileStamp{} || unit > 1000000) return {false, true};
  if (fine_times) return {true, false};
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  const int64_t nanos = int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
  const int64_t written = std::max(stamp.modified, stamp.changed);
  return {nanos - nanos % unit > written, written - nanos > kLongestTick};
}

void Pause() {
  timespec pause{0, 500000};
  nanosleep(&pause, nullptr);
}

// Nobody writes to a file that is locked for the last close: waits until the tick is over. False when it is not known.
bool AwaitTick(const FileStamp& stamp, bool fine_times) {
  for (int i = 0; i < kMostTickLooks; i++) {
    const Tick tick = TickOf(stamp, fine_times);
    if (tick.settled || tick.never) return tick.settled;
    Pause();
  }
  return false;
}

WalSeen SeenIn(const WalIndexHeader& header) {
  return {header.wal_salts(), header.max_frame, header.changes};
}

uint64_t FreshId() {
  uint64_t id = 0;
  while (id == 0) id = RandomNumber();
  return id;
}

uint64_t Word(const WalSalts& salts) {
  uint64_t word = 0;
  std::memcpy(&word, salts.data(), sizeof word);
  return word;
}

WalSalts SaltsOf(uint64_t word) {
  WalSalts salts{};
  std::memcpy(salts.data(), &word, sizeof word);
  return salts;
}

}  // namespace

// Under the lock only taps change anything: chain_end, for the WAL that they commit to.
WalChain Database::LoadChain() const {
  const ControlBlock::Chain& slot = control_->chain[control_->chain_turn.load(std::memory_order_acquire) % 2];
  WalChain chain;
  chain.id = slot.id.load(std::memory_order_relaxed);
  chain.ordinal = slot.ordinal.load(std::memory_order_relaxed);
  chain.previous_end = slot.previous_end.load(std::memory_order_relaxed);
  chain.salts = SaltsOf(slot.salts.load(std::memory_order_relaxed));
  chain.opened = slot.opened.load(std::memory_order_relaxed);
  chain.left = slot.left.load(std::memory_order_relaxed);
  chain.left_end = slot.left_end.load(std::memory_order_relaxed);
  chain.judged = slot.judged.load(std::memory_order_relaxed) != 0;
  const uint64_t end = control_->chain_end.load(std::memory_order_acquire);
  chain.end = static_cast<uint32_t>(end >> 32);
  chain.count = static_cast<uint32_t>(end);
  return chain;
}

// Killed between the two stores, a process leaves the new WAL with the old one's end and count: the next look takes the
// WAL's own, and a count that is too low does not add up.
void Database::StoreChain(const WalChain& before, const WalChain& chain) {
  WalChain same = before;
  same.end = chain.end;
  same.count = chain.count;
  if (same != chain) {
    const uint32_t turn = control_->chain_turn.load(std::memory_order_relaxed) + 1;
    ControlBlock::Chain& slot = control_->chain[turn % 2];
    slot.id.store(chain.id, std::memory_order_relaxed);
    slot.ordinal.store(chain.ordinal, std::memory_order_relaxed);
    slot.previous_end.store(chain.previous_end, std::memory_order_relaxed);
    slot.salts.store(Word(chain.salts), std::memory_order_relaxed);
    slot.opened.store(chain.opened, std::memory_order_relaxed);
    slot.left.store(chain.left, std::memory_order_relaxed);
    slot.left_end.store(chain.left_end, std::memory_order_relaxed);
    slot.judged.store(chain.judged ? 1 : 0, std::memory_order_relaxed);
    control_->chain_turn.store(turn, std::memory_order_release);
  }
  // Unchanged, it is left alone: a tap may have moved it on.
  if (chain.end != before.end || chain.count != before.count)
    control_->chain_end.store(uint64_t{chain.end} << 32 | chain.count, std::memory_order_release);
}

// From outside SQLite's locks: a tap that has moved it on meanwhile is right.
void Database::MoveEnd(const WalChain& before, const WalSeen& seen) {
  uint64_t end = uint64_t{before.end} << 32 | before.count;
  if (seen.end > before.end)
    (void)control_->chain_end.compare_exchange_strong(end, uint64_t{seen.end} << 32 | seen.count);
}

// Nothing more can be noted: no chain goes on.
void Database::LoseChain() noexcept {
  for (ControlBlock::Chain& slot : control_->chain) slot.id.store(0);
  control_->active.store(0);
  control_->overflow.store(1);
  WakeLeader(control_);
}

CommitCount Database::CountCommits(const WalIndexHeader& header) const {
  // The -wal carries no locks: it may be opened and closed.
  auto fd = OpenFile(wal_path(), O_RDONLY);
  if (!fd.ok()) return {};
  const size_t size = header.page_size() + kFrameHeaderSize;
  std::string frames[2] = {std::string(size, '\0'), std::string(size, '\0')};
  CommitCount commits;
  uint32_t last = 0;  // the commit frame that was read last; frames[last % 2]
  for (uint32_t i = 1; i <= header.max_frame; i++) {
    std::string& frame = frames[i % 2];
    auto got = ReadAt(fd->get(), frame.data(), size, FrameOffset(i, header.page_size()), path_);
    const FrameHeader h = ParseFrameHeader(reinterpret_cast<const uint8_t*>(frame.data()));
    if (!got.ok() || *got != size || !BelongsTo(h, header.wal_salts())) return {};
    if (!h.commit()) continue;
    commits.most++;
    const std::string& before = frames[1 - i % 2];
    const bool repeats = last + 1 == i && last != 0 && before.compare(0, 8, frame, 0, 8) == 0 &&
                         before.compare(kFrameHeaderSize, std::string::npos, frame, kFrameHeaderSize) == 0;
    if (!repeats) commits.least++;
    last = i;
  }
  return commits;
}

void Database::Settle(const WalIndexHeader& header, bool look, WalChain* chain) {
  const WalSeen seen = SeenIn(header);
  if (!chain->judged) {
    const FileStamp stamp = StampOf(path_);
    Judge(seen, HashOf(stamp), TickOf(stamp, fine_times_).settled, FreshId(), chain);
    control_->oldest_time.store(0, std::memory_order_relaxed);  // the count may be another one
    return;
  }
  const WalChain before = *chain;
  const CommitCount commits = NeedsCount(*chain, seen) ? CountCommits(header) : CommitCount{};
  Observe(seen, commits, FreshId(), chain);
  if (!look || before.id != chain->id || before.ordinal != chain->ordinal || before.salts != chain->salts) return;
  MoveEnd(before, seen);
  const WalChain now = LoadChain();
  chain->end = now.end;
  chain->count = now.count;
}

bool Database::NoteGate(const WalIndexHeader& header, RestartBy by) {
  // Before a checkpoint empties the WAL. (A writer that restarts it leaves the old frames there until its commit.)
  // Should everybody be killed then, the file's stamp is all that tells.
  if (by == RestartBy::kCheckpoint) (void)AwaitTick(StampOf(path_), fine_times_);
  ChainLock lock(this);
  const WalChain before = LoadChain();
  WalChain chain = before;
  Settle(header, false, &chain);
  if (by != RestartBy::kClose) {
    // If it is not settled yet, the leader may come to note it (NoteQuiet).
    const FileStamp stamp = StampOf(path_);
    if (TickOf(stamp, fine_times_).settled) Leave(HashOf(stamp), &chain);
  }
  StoreChain(before, chain);
  return before.id != 0 && chain.id != before.id;
}

void Database::BeginWal(const volatile void* region0) noexcept {
  try {
    WalIndexHeader header;
    ChainLock lock(this);
    const WalChain before = LoadChain();
    WalChain chain = before;
    // Its writer is this thread.
    if (!ReadWalIndexHeader(region0, &header)) return LoseChain();
    Settle(header, false, &chain);
    StoreChain(before, chain);
  } catch (const std::exception&) {
    LoseChain();
  }
}

void Database::JudgeChain(const volatile void* region0, bool recovered) noexcept {
  try {
    WalIndexHeader header;
    ChainLock lock(this);
    const WalChain before = LoadChain();
    WalChain chain = before;
    if (chain.judged && !recovered) return;
    // Unreadable: whoever is at it now recovers it, and judges.
    for (int attempt = 0; !ReadWalIndexHeader(region0, &header); attempt++)
      if (attempt == kMostLooks) return;
    chain.judged = false;
    Settle(header, false, &chain);
    StoreChain(before, chain);
  } catch (const std::exception&) {
    LoseChain();
  }
}

Result<WalChain> Database::Look(const volatile void* region0, WalIndexHeader* header) {
  ChainLock lock(this);
  const WalChain before = LoadChain();
  WalChain chain = before;
  for (int attempt = 0; !ReadWalIndexHeader(region0, header); attempt++)
    if (attempt == kMostLooks) return Status(Code::kUnavailable, path_ + ": the wal-index is being rebuilt");
  Settle(*header, true, &chain);
  // In the same WAL there is nothing to note but its end, which is noted.
  if (before.id != chain.id || before.ordinal != chain.ordinal || before.salts != chain.salts ||
      before.judged != chain.judged)
    StoreChain(before, chain);
  return chain;
}

void Database::SeeEnd(const WalSeen& seen) {
  ChainLock lock(this);
  const WalChain chain = LoadChain();
  if (chain.judged && chain.salts == seen.salts) MoveEnd(chain, seen);
}

void Database::UnjudgeChain() noexcept {
  try {
    ChainLock lock(this);
    const WalChain before = LoadChain();
    WalChain chain = before;
    chain.judged = false;
    StoreChain(before, chain);
  } catch (const std::exception&) {
    LoseChain();
  }
}

void Database::NoteClosed() noexcept {
  try {
    const FileStamp stamp = StampOf(path_);
    if (!AwaitTick(stamp, fine_times_)) return;
    ChainLock lock(this);
    const WalChain before = LoadChain();
    WalChain chain = before;
    Leave(HashOf(stamp), &chain);
    StoreChain(before, chain);
  } catch (const std::exception&) {
    LoseChain();
  }
}

bool Database::NoteQuiet(const volatile void* region0) {
  ChainLock lock(this);
  const WalChain before = LoadChain();
  WalChain chain = before;
  WalIndexHeader header;
  auto quiet = [&] {
    return ReadWalIndexHeader(region0, &header) && header.max_frame == 0 && header.changes == chain.count;
  };
  if (!chain.judged || (chain.left != 0 && chain.left_end == chain.end) || !quiet()) return false;
  const FileStamp stamp = StampOf(path_);
  const Tick tick = TickOf(stamp, fine_times_);
  // Looked at again: nobody has committed, so nobody has checkpointed.
  if (!tick.settled || !quiet()) return !tick.never;
  Leave(HashOf(stamp), &chain);
  StoreChain(before, chain);
  return false;
}

void Database::AwaitQuiet(const volatile void* region0) noexcept {
  try {
    {
      MutexLock lock(gate_);
      if (users_ != 1) return;
    }
    for (int i = 0; i < kMostTickLooks && NoteQuiet(region0); i++) Pause();
  } catch (const std::exception&) {
    // No memory: whoever comes next compares.
  }
}

Result<WalChain> Database::Chain() {
  ChainLock lock(this);
  return LoadChain();
}

}  // namespace replica

#include "base/control_block.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/boot.h"
#include "base/byte_lock.h"
#include "base/fs.h"
#include "base/futex.h"
#include "base/hash.h"

namespace replica {
namespace {

constexpr uint64_t kMagic = 0x3930305254434c52;        // "RLCTR009"; changes with the struct
constexpr uint64_t kAnyVersion = 0x0000005254434c52;   // "RLCTR": what all versions have in common …
constexpr uint64_t kVersionless = 0x000000ffffffffff;  // … in these bytes

// The blocks that this process has mapped, for LoseControlPage.
struct Mapped {
  std::atomic<ControlBlock*> block;
  std::atomic<bool> lost;
};
std::array<Mapped, 1024> all_mapped;

Result<ControlBlock*> Map(const UniqueFd& fd, const std::string& path) {
  void* p = ::mmap(nullptr, sizeof(ControlBlock), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  return static_cast<ControlBlock*>(p);
}

enum class Block { kUsable, kWorthless, kOtherVersion };

// A block of an earlier start of the machine, or a damaged one, is worth nothing.
Block Inspect(const UniqueFd& fd) {
  struct stat st {};
  uint64_t head[2] = {0, 0};
  auto n = ReadAt(fd.get(), head, sizeof head, 0, "control");
  if (!n.ok() || *n != sizeof head || head[1] != BootHash() || ::fstat(fd.get(), &st) != 0) return Block::kWorthless;
  if (head[0] != kMagic) return (head[0] & kVersionless) == kAnyVersion ? Block::kOtherVersion : Block::kWorthless;
  return st.st_size == static_cast<off_t>(sizeof(ControlBlock)) ? Block::kUsable : Block::kWorthless;
}

// True while some process has the database open with libreplica, of whatever version.
bool InUse(int lock_fd) {
  return IsLocked(lock_fd, LockByte::kUsers) || IsLocked(lock_fd, LockByte::kLeader) ||
         IsLocked(lock_fd, LockByte::kDedicated);
}

Status OtherVersion(const std::string& folder) {
  return {Code::kUnavailable, folder +
                                  " is in use by another version of libreplica, which uploads meanwhile; this process "
                                  "takes over when the last one of that version has closed the database"};
}

}  // namespace

const char* StateName(ReplicaState state) {
  switch (state) {
    case ReplicaState::kOff:
      return "off";
    case ReplicaState::kSnapshot:
      return "snapshot";
    case ReplicaState::kStreaming:
      return "streaming";
    case ReplicaState::kBehind:
      return "behind";
    case ReplicaState::kResync:
      return "resync";
    case ReplicaState::kFenced:
      return "fenced";
    case ReplicaState::kError:
      return "error";
  }
  return "error";
}

int64_t LoadTime(const std::atomic<int64_t>& micros) {
  constexpr int64_t kEnd = INT64_C(253402300800000000);  // 10000-01-01
  const int64_t time = micros.load(std::memory_order_relaxed);
  return time > 0 && time < kEnd ? time : 0;
}

void StoreText(ControlBlock::Text* text, const std::string& value) {
  const uint32_t version = text->version.load(std::memory_order_relaxed) | 1;
  text->version.store(version, std::memory_order_seq_cst);
  const size_t length = std::min(value.size(), sizeof text->words);
  uint64_t words[64] = {};
  std::memcpy(words, value.data(), length);
  for (int i = 0; i < 64; i++) text->words[i].store(words[i], std::memory_order_relaxed);
  text->length.store(static_cast<uint32_t>(length), std::memory_order_relaxed);
  text->version.store(version + 1, std::memory_order_seq_cst);
}

std::string LoadText(const ControlBlock::Text& text) {
  uint64_t words[64];
  for (int attempt = 0; attempt < 1000; attempt++) {
    const uint32_t version = text.version.load(std::memory_order_acquire);
    for (int i = 0; i < 64; i++) words[i] = text.words[i].load(std::memory_order_relaxed);
    const uint32_t length = text.length.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((version & 1) == 0 && text.version.load(std::memory_order_relaxed) == version)
      return {reinterpret_cast<const char*>(words), std::min<size_t>(length, sizeof words)};
  }
  return "";  // its writer died in the middle of it
}

Result<std::unique_ptr<ControlMapping>> ControlMapping::Open(const std::string& folder) {
  const std::string path = folder + "/control";
  // Creation is serialised by an advisory lock on the folder, so that two processes do not make two blocks.
  REPLICA_ASSIGN(UniqueFd opened, OpenOwnFile(LockPath(folder), O_RDWR | O_CREAT));
  const LockFile guard(std::move(opened));
  REPLICA_TRY(Lock(guard.get(), LockByte::kCreation, LockPath(folder)));

  auto existing = OpenOwnFile(path, O_RDWR);
  const Block what = existing.ok() ? Inspect(*existing) : Block::kWorthless;
  if (what == Block::kUsable) {
    REPLICA_ASSIGN(ControlBlock * block, Map(*existing, path));
    return std::unique_ptr<ControlMapping>(new ControlMapping(block));
  }
  if (what == Block::kOtherVersion && InUse(guard.get())) return OtherVersion(folder);
  if (existing.ok()) REPLICA_TRY(RemoveFile(path));
  const std::string temporary = path + ".new";
  REPLICA_TRY(RemoveFile(temporary));
  REPLICA_ASSIGN(UniqueFd fd, OpenFile(temporary, O_RDWR | O_CREAT | O_EXCL));
  // posix_fallocate: a full disk must fail here, not with SIGBUS at the first store.
  const int error = ::posix_fallocate(fd.get(), 0, sizeof(ControlBlock));
  if (error != 0) return ErrnoStatus(error, "allocate", temporary);
  REPLICA_ASSIGN(ControlBlock * block, Map(fd, temporary));
  block->wake_at.store(kWakeNever);
  block->boot.store(BootHash());
  block->magic.store(kMagic);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    ::munmap(block, sizeof(ControlBlock));
    return ErrnoStatus(errno, "rename to", path);
  }
  return std::unique_ptr<ControlMapping>(new ControlMapping(block));
}

Result<std::unique_ptr<ControlMapping>> ControlMapping::OpenExisting(const std::string& folder) {
  const std::string path = folder + "/control";
  REPLICA_ASSIGN(UniqueFd fd, OpenOwnFile(path, O_RDWR));
  const Block what = Inspect(fd);
  if (what == Block::kOtherVersion) {
    auto lock = OpenOwnFile(LockPath(folder), O_RDWR);
    if (lock.ok() && InUse(lock->get())) return OtherVersion(folder);
  }
  if (what != Block::kUsable) return Status(Code::kNotFound, path + " is not of this boot, or of another version");
  REPLICA_ASSIGN(ControlBlock * block, Map(fd, path));
  return std::unique_ptr<ControlMapping>(new ControlMapping(block));
}

ControlMapping::ControlMapping(ControlBlock* block) : block_(block) {
  // In the first place that is free; without one, losing a page ends the process.
  for (Mapped& mapped : all_mapped) {
    ControlBlock* nobody = nullptr;
    if (!mapped.block.compare_exchange_strong(nobody, block)) continue;
    mapped.lost.store(false);
    return;
  }
}

bool ControlMapping::lost() const {
  return std::any_of(all_mapped.begin(), all_mapped.end(),
                     [this](const Mapped& mapped) { return mapped.block.load() == block_ && mapped.lost.load(); });
}

bool LoseControlPage(const void* address) {
  for (Mapped& mapped : all_mapped) {
    const auto* begin = reinterpret_cast<const char*>(mapped.block.load());
    const auto* at = static_cast<const char*>(address);
    if (begin == nullptr || at < begin || at >= begin + sizeof(ControlBlock)) continue;
    mapped.lost.store(true);
    return true;
  }
  return false;
}

ControlMapping::~ControlMapping() {
  for (Mapped& mapped : all_mapped)
    if (mapped.block.load() == block_) mapped.block.store(nullptr);
  ::munmap(block_, sizeof(ControlBlock));
}

void WakeLeader(ControlBlock* block) {
  block->wake_at.store(kWakeNever, std::memory_order_seq_cst);
  block->wake_word.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(&block->wake_word);
}

void NotifyWaiters(ControlBlock* block) {
  block->ack_word.fetch_add(1, std::memory_order_seq_cst);
  if (block->waiters.load(std::memory_order_seq_cst) != 0) FutexWakeAll(&block->ack_word);
}

}  // namespace replica

#include "vfs/wal_chain.h"

namespace replica {
namespace {

void Same(const WalSeen& seen, WalChain* chain) {
  chain->end = seen.end;
  chain->count = seen.count;
}

void Next(const WalSeen& seen, WalChain* chain) {
  // A WAL without a commit was none.
  if (chain->end != 0) {
    chain->previous_end = chain->end;
    chain->ordinal++;
  }
  chain->salts = seen.salts;
  chain->left = 0;
  Same(seen, chain);
}

void Begin(const WalSeen& seen, uint64_t fresh, WalChain* chain) {
  const bool judged = chain->judged;
  *chain = {};
  chain->id = fresh;
  chain->ordinal = 1;
  chain->salts = seen.salts;
  chain->judged = judged;
  Same(seen, chain);
}

}  // namespace

bool NeedsCount(const WalChain& chain, const WalSeen& seen) {
  return chain.id != 0 && seen.end != 0 && seen.salts != chain.salts && seen.count - chain.count > 1;
}

void Observe(const WalSeen& seen, const CommitCount& commits, uint64_t fresh, WalChain* chain) {
  if (chain->id == 0) return Begin(seen, fresh, chain);
  const uint32_t since = seen.count - chain->count;
  if (seen.salts == chain->salts) {
    // Commits do not leave a WAL without its salts changing.
    if (seen.end == 0 && (chain->end != 0 || since != 0)) return Begin(seen, fresh, chain);
    return Same(seen, chain);
  }
  if (seen.end == 0) {
    // Restarted, and nothing is committed in it. What was counted since, somebody else wrote into the WAL before.
    if (since != 0) Begin(seen, fresh, chain);
    return;
  }
  // One commit since: it is in this WAL, which has at least one.
  if (since == 1 || (since != 0 && commits.least <= since && since <= commits.most)) return Next(seen, chain);
  Begin(seen, fresh, chain);
}

void Judge(const WalSeen& seen, uint64_t stamp, bool settled, uint64_t fresh, WalChain* chain) {
  chain->judged = true;
  const bool as_left = chain->left != 0 && chain->left == stamp && chain->left_end == chain->end;
  if (chain->id != 0 && seen.end != 0 && seen.salts == chain->salts) return Same(seen, chain);
  if (chain->id != 0 && as_left) {
    if (seen.end != 0) return Next(seen, chain);
    chain->count = seen.count;
    return;
  }
  Begin(seen, fresh, chain);
  chain->opened = stamp;
  if (seen.end == 0 && settled) Leave(stamp, chain);
}

void Leave(uint64_t stamp, WalChain* chain) {
  chain->left = stamp;
  chain->left_end = chain->end;
}

bool IsEnd(const WalPosition& at, const WalChain& chain) {
  const WalPosition end = EndOf(chain);
  return chain.id != 0 && at.chain == end.chain && at.ordinal == end.ordinal && at.frame == end.frame;
}

bool Follows(const WalPosition& at, uint64_t id, uint32_t ordinal, uint32_t previous_end) {
  return id != 0 && at.chain == id && at.ordinal + 1 == ordinal && at.frame == previous_end;
}

WalPosition EndOf(const WalChain& chain) {
  WalPosition at;
  at.chain = chain.id;
  at.ordinal = chain.end == 0 ? chain.ordinal - 1 : chain.ordinal;
  at.frame = chain.end == 0 ? chain.previous_end : chain.end;
  return at;
}

}  // namespace replica

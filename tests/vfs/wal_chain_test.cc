// Every order of events of a model of SQLite's WAL, over the real rules of vfs/wal_chain.h.
#include "vfs/wal_chain.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace replica {
namespace {

constexpr uint32_t kMost = 2;      // frames in a WAL, and SQLite's count (with 3: 833,520 states, in 6 s)
constexpr int kOurs = 2;           // connections with libreplica
constexpr uint32_t kOrdinal = 10;  // what a chain's ordinal is written as: only differences count

// One frame a commit. Salts and stamps are numbers that are given out in order.
struct World {
  // --- SQLite's files and wal-index
  uint32_t wal = 0;       // salts; 0: there is no WAL
  uint32_t frames = 0;    // committed in it
  bool index = false;     // the wal-index lives
  uint32_t count = 0;     // iChange
  bool copied = true;     // all frames are in the database file
  uint32_t stamp = 1;     // of the database file
  uint32_t next_wal = 1;  // salts of the next WAL
  int ours = 0;           // connections with libreplica
  bool foreign = false;   // one without
  // --- what the control block and the leader know
  WalChain chain;
  WalPosition at;
  // --- the truth
  uint32_t behind = 0;  // commits in the live WAL that the leader has not captured
  bool lost = false;    // one that it has not captured died
  bool begun = false;   // the leader has captured before
};

WalSalts Salts(uint32_t number) {
  WalSalts salts{};
  std::memcpy(salts.data(), &number, sizeof number);
  return salts;
}

uint32_t Number(const WalSalts& salts) {
  uint32_t number = 0;
  std::memcpy(&number, salts.data(), sizeof number);
  return number;
}

// Ids, salts and stamps by the order in which they appear, so that worlds that behave alike are one.
using Key = std::vector<uint32_t>;
Key Normalise(World* w) {
  std::map<uint32_t, uint32_t> salts{{0, 0}};
  auto name = [&](uint32_t number) { return salts.emplace(number, salts.size()).first->second; };
  w->wal = name(w->wal);
  w->chain.salts = Salts(name(Number(w->chain.salts)));
  w->at.salts = Salts(name(Number(w->at.salts)));
  w->next_wal = static_cast<uint32_t>(salts.size());
  const auto stamp = [&](uint64_t of) { return of == 0 ? 0U : of == w->stamp ? 2U : 1U; };
  w->chain.left = stamp(w->chain.left);
  w->chain.opened = 0;
  w->stamp = 2;
  const bool same_chain = w->chain.id != 0 && w->at.chain == w->chain.id;
  uint32_t back = same_chain ? w->chain.ordinal - w->at.ordinal : 3;
  back = std::min<uint32_t>(back, 3);
  w->chain.ordinal = kOrdinal;
  w->at.ordinal = kOrdinal - back;
  w->at.chain = same_chain ? 1 : 0;
  if (w->chain.id != 0) w->chain.id = 1;
  return {w->wal,
          w->frames,
          w->index,
          w->count,
          w->copied,
          static_cast<uint32_t>(w->ours),
          w->foreign,
          static_cast<uint32_t>(w->chain.id),
          w->chain.previous_end,
          Number(w->chain.salts),
          w->chain.end,
          w->chain.count,
          static_cast<uint32_t>(w->chain.left),
          w->chain.left_end,
          w->chain.judged,
          static_cast<uint32_t>(w->at.chain),
          back,
          w->at.frame,
          Number(w->at.salts),
          w->behind,
          w->lost,
          w->begun};
}

class Model {
 public:
  void Run() {
    World first;
    Visit(first, {});
    while (!queue_.empty() && failures_.size() < 3) {
      auto [world, path] = queue_.front();
      queue_.pop_front();
      path_ = path;
      Steps(world);
    }
  }

  size_t states() const { return seen_.size(); }
  size_t proofs() const { return proofs_; }
  size_t comparisons() const { return comparisons_; }
  const std::vector<std::string>& failures() const { return failures_; }
  // An event order in which only processes with libreplica took part, and all the same the leader had to compare.
  const std::vector<std::string>& needless() const { return needless_; }

 private:
  void Visit(World world, const std::string& path) {
    if (world.frames > kMost || world.count > kMost) return;
    if (seen_.emplace(Normalise(&world), true).second) queue_.emplace_back(world, path);
  }

  static WalSeen Seen(const World& w) { return {Salts(w.wal), w.frames, w.count}; }

  void Look(World* w) {
    if (!w->chain.judged) return Look4(w);
    Observe(Seen(*w), {w->frames, w->frames}, 2, &w->chain);
  }
  void Look4(World* w) { Judge(Seen(*w), w->stamp, true, 2, &w->chain); }

  // The leader reads what there is. A proof that does not hold is what must not be.
  void Capture(World* w) {
    Look(w);
    const bool same = w->at.chain == w->chain.id && w->at.ordinal == w->chain.ordinal;
    const bool proven = w->frames == 0 ? IsEnd(w->at, w->chain)
                                       : same || Follows(w->at, w->chain.id, w->chain.ordinal, w->chain.previous_end);
    if (proven) proofs_++;
    if (!proven) comparisons_++;
    if (proven && w->lost) failures_.push_back(path_ + "leader captures: a false proof");
    if (!proven && !w->lost && needless_.size() < 3 && w->begun && path_.find("F ") == std::string::npos)
      needless_.push_back(path_ + "leader captures");
    w->behind = 0;
    w->lost = false;
    w->begun = true;
    w->at = EndOf(w->chain);
    if (w->frames != 0) w->at.salts = w->chain.salts;
  }

  static void WalDies(World* w) {
    if (w->behind != 0) w->lost = true;
    w->behind = 0;
    w->frames = 0;
    w->copied = true;
  }

  // walRestartHdr
  void Restart(World* w, bool ours) {
    if (ours) Gate(w);
    WalDies(w);
    w->wal = w->next_wal++;
  }

  void Gate(World* w) {
    Look(w);
    if (w->copied && w->frames == w->chain.end && w->chain.salts == Salts(w->wal)) Leave(w->stamp, &w->chain);
  }

  void Checkpoint(World* w, bool ours) {
    if (ours) Look(w);  // before the file is another one
    if (w->copied || w->frames == 0) return;
    w->copied = true;
    w->stamp++;
  }

  void Commit(World* w, bool ours, bool tapped) {
    if (w->frames != 0 && w->copied) Restart(w, ours);
    if (w->wal == 0) w->wal = w->next_wal++;
    w->frames++;
    w->count++;
    w->copied = false;
    w->behind++;
    if (ours && tapped) Look(w);
  }

  void Step(const World& from, const char* name, const std::function<void(World*)>& change) {
    World w = from;
    const std::string path = path_;
    change(&w);
    Visit(w, path + name + " | ");
  }

  void Steps(const World& w) {
    auto open = [](World* x) {
      if (x->index) return;
      x->index = true;  // recovers it: SQLite counts from 0
      x->count = 0;
      x->copied = x->frames == 0;
    };
    if (w.ours < kOurs)
      Step(w, "O opens", [&](World* x) {
        if (x->ours == 0) x->chain.judged = false;
        // The first to come recovers the index, or finds one that a process without libreplica keeps alive.
        const bool recovers = !x->index;
        open(x);
        if (recovers || x->ours == 0) Look4(x);
        x->ours++;
      });
    if (!w.foreign)
      Step(w, "F opens", [&](World* x) {
        open(x);
        x->foreign = true;
      });
    if (w.ours > 0) {
      Step(w, "leader captures", [&](World* x) { Capture(x); });
      // A process was killed while it changed the index, and one of ours comes to it first.
      Step(w, "torn, O recovers", [&](World* x) {
        x->count = 0;
        x->copied = x->frames == 0;
        Look4(x);
      });
    }
    for (const bool ours : {true, false}) {
      if (ours ? w.ours == 0 : !w.foreign) continue;
      const bool alone = w.ours + (w.foreign ? 1 : 0) == 1;
      Step(w, ours ? "O commits" : "F commits", [&](World* x) { Commit(x, ours, true); });
      if (ours)
        Step(w, "O commits, killed before the tap", [&](World* x) {
          Commit(x, true, false);
          x->ours--;
          if (alone) x->index = false;
        });
      if (ours && w.frames != 0 && w.copied)
        Step(w, "O restarts, killed before the commit", [&](World* x) {
          Restart(x, true);
          x->ours--;
          if (alone) x->index = false;
        });
      Step(w, ours ? "O checkpoints" : "F checkpoints", [&](World* x) { Checkpoint(x, ours); });
      if (w.frames != 0) {
        Step(w, ours ? "O TRUNCATE" : "F TRUNCATE", [&](World* x) {
          Checkpoint(x, ours);
          Restart(x, ours);
        });
        if (ours)
          Step(w, "O RESTART", [&](World* x) {
            Checkpoint(x, true);
            Gate(x);
          });
      }
      Step(w, ours ? "O closes" : "F closes", [&](World* x) {
        if (ours) x->ours--;
        if (!ours) x->foreign = false;
        if (!alone) return;
        Checkpoint(x, ours);
        if (ours && (x->frames == 0 || x->chain.salts == Salts(x->wal))) Leave(x->stamp, &x->chain);
        WalDies(x);
        x->wal = 0;
        x->index = false;
      });
      Step(w, ours ? "O killed" : "F killed", [&](World* x) {
        if (ours) x->ours--;
        if (!ours) x->foreign = false;
        if (alone) x->index = false;
      });
    }
  }

  std::map<Key, bool> seen_;
  std::deque<std::pair<World, std::string>> queue_;
  std::string path_;
  std::vector<std::string> failures_;
  std::vector<std::string> needless_;
  size_t proofs_ = 0;
  size_t comparisons_ = 0;
};

TEST(WalChain, Invariant_NoSilentGap_NoOrderOfEventsLeadsToAFalseProof) {
  Model model;
  model.Run();
  for (const std::string& failure : model.failures()) ADD_FAILURE() << failure;
  for (const std::string& order : model.needless()) ADD_FAILURE() << "compared in vain: " << order;
  std::printf("%zu states, %zu proofs, %zu comparisons\n", model.states(), model.proofs(), model.comparisons());
  EXPECT_GT(model.states(), 10000U);
  EXPECT_GT(model.proofs(), 1000U);
}

}  // namespace
}  // namespace replica

#include "uploader/lineage.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace replica {
namespace {

struct Case {
  const char* name;
  std::function<void(LineageFacts*)> facts;
  Lineage expected;
};

// What a folder that goes on undisturbed finds.
LineageFacts Own() {
  LineageFacts f;
  f.knows_history = f.same_folder = f.head_is_known = f.head_is_ours = true;
  f.claim_is_folder = f.claim_is_place = f.claim_is_path = true;
  return f;
}

TEST(LineageTest, WhoMayGoOn) {
  const std::vector<Case> cases = {
      {"undisturbed", [](LineageFacts*) {}, Lineage::kContinue},
      {"a power loss put the state back", [](LineageFacts* f) { f->head_is_known = false; }, Lineage::kBehind},
      {"another writer took over",
       [](LineageFacts* f) { f->head_is_known = f->head_is_ours = f->claim_is_folder = false; }, Lineage::kFenced},
      {"another writer took over, and the claim is still ours",
       [](LineageFacts* f) { f->head_is_known = f->head_is_ours = false; }, Lineage::kFenced},
      {"the same, and a person decides",
       [](LineageFacts* f) { f->head_is_known = f->head_is_ours = false, f->takeover = true; }, Lineage::kContinueNew},
      {"a copied volume, nothing newer at the store",
       [](LineageFacts* f) { f->same_folder = f->claim_is_folder = false; }, Lineage::kContinueCopy},
      {"a copied volume at the same path on the same host, production went on",
       [](LineageFacts* f) { f->same_folder = f->claim_is_folder = f->head_is_known = false; }, Lineage::kRefuseCopy},
      {"a copied volume elsewhere, production went on",
       [](LineageFacts* f) {
         f->same_folder = f->claim_is_folder = f->claim_is_path = f->claim_is_place = f->head_is_known = false;
       },
       Lineage::kRefuseCopy},
      {"restored in its place on another host",
       [](LineageFacts* f) { f->restored = true, f->head_is_ours = f->claim_is_place = f->claim_is_folder = false; },
       Lineage::kContinueNew},
      {"restored to an earlier moment, in its place",
       [](LineageFacts* f) { f->restored = true, f->head_is_known = f->head_is_ours = f->claim_is_folder = false; },
       Lineage::kContinueNew},
      {"restored elsewhere to try it",
       [](LineageFacts* f) { f->restored = true, f->claim_is_path = f->claim_is_place = false; },
       Lineage::kRefuseRestore},
      {"the state was lost in a power loss",
       [](LineageFacts* f) { f->knows_history = f->same_folder = f->head_is_known = f->head_is_ours = false; },
       Lineage::kBehind},
      {"it was replicated to another URL meanwhile",
       [](LineageFacts* f) {
         f->knows_history = f->same_folder = f->head_is_known = f->head_is_ours = false;
         f->knows_other = true;
       },
       Lineage::kRefuseForeign},
      {"the folder was lost, the content is the head's, at its place",
       [](LineageFacts* f) {
         *f = {};
         f->content_is_head = f->claim_is_place = f->claim_is_path = true;
       },
       Lineage::kContinueNew},
      {"the same, on another host: two new databases are equal too",
       [](LineageFacts* f) {
         *f = {};
         f->content_is_head = f->claim_is_path = true;
       },
       Lineage::kRefuseForeign},
      {"another database at its place",
       [](LineageFacts* f) {
         *f = {};
         f->claim_is_place = f->claim_is_path = true;
       },
       Lineage::kRefuseForeign},
  };
  for (const Case& c : cases) {
    LineageFacts facts = Own();
    c.facts(&facts);
    EXPECT_EQ(DecideLineage(facts), c.expected) << c.name;
  }
}

// Over all combinations of facts: nobody goes on in a history that another writer has continued, unless a person says
// so.
TEST(LineageTest, Invariant_OneWriter_NobodyFollowsAnotherWriterUnasked) {
  constexpr int kFacts = 11;
  for (unsigned bits = 0; bits < 1U << kFacts; bits++) {
    auto bit = [bits](int i) { return (bits >> i & 1) != 0; };
    const LineageFacts f = {false,  bit(0), bit(1), bit(2), bit(3), bit(4),
                            bit(5), bit(6), bit(7), bit(8), bit(9), bit(10)};
    if (!f.knows_history || f.restored || f.head_is_known || (f.same_folder && f.head_is_ours)) continue;
    const Lineage lineage = DecideLineage(f);
    EXPECT_TRUE(lineage == Lineage::kFenced || lineage == Lineage::kRefuseCopy) << bits;
  }
}

}  // namespace
}  // namespace replica

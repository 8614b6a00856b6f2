#include "uploader/lineage.h"

namespace replica {

Lineage DecideLineage(const LineageFacts& f) {
  if (f.takeover) return Lineage::kContinueNew;
  if (f.knows_history && f.restored) {
    // It goes on in its database's place. Elsewhere it is a copy: a restore that is only tried must not take the
    // history from the database that it is of. (The host is not asked: containers change theirs.)
    return f.claim_missing || f.claim_is_path ? Lineage::kContinueNew : Lineage::kRefuseRestore;
  }
  if (f.knows_history && f.same_folder) {
    if (f.head_is_known) return Lineage::kContinue;
    return f.head_is_ours ? Lineage::kBehind : Lineage::kFenced;
  }
  if (f.knows_history) return f.head_is_known ? Lineage::kContinueCopy : Lineage::kRefuseCopy;
  // The state is lost or torn. The claim was made durable at the store before the history began, and only this folder
  // has its identity.
  if (!f.knows_other && f.claim_is_folder) return Lineage::kBehind;
  // Equal content alone proves nothing: two new databases are equal.
  if (f.content_is_head && (f.claim_missing || f.claim_is_place)) return Lineage::kContinueNew;
  return Lineage::kRefuseForeign;
}

}  // namespace replica

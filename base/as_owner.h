// Root acting as somebody else, in one thread: so that what it makes beside a database belongs to who uses the
// database, as SQLite does with its WAL, and so that nothing which that user has put there leads root elsewhere.
#ifndef LIBREPLICA_BASE_AS_OWNER_H_
#define LIBREPLICA_BASE_AS_OWNER_H_

#include <string>

#include "base/status.h"

namespace replica {

// As root: from now on this thread, and those that it starts, open and make files as the owner of `path`, with that
// user's groups. No effect for others, nor when `path` is not there. kPermission without CAP_SETUID.
Status ActAs(const std::string& path);
// The thread acts as itself again.
void ActAsOneself();

// ActAs for a scope, unless the thread acts as somebody already. Best effort: where it cannot, the thread stays root.
class AsOwner {
 public:
  explicit AsOwner(const std::string& path);
  ~AsOwner();
  AsOwner(const AsOwner&) = delete;
  AsOwner& operator=(const AsOwner&) = delete;

 private:
  bool acts_ = false;
};

// As root: gives a file that was just made to whoever owns `folder`. Takes no memory.
void GiveToOwner(int fd, const std::string& folder) noexcept;

}  // namespace replica

#endif  // LIBREPLICA_BASE_AS_OWNER_H_

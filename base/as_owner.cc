#include "base/as_owner.h"

#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace replica {
namespace {

// The groups of the process as it was started.
const std::vector<gid_t>& OwnGroups() {
  static const std::vector<gid_t> groups = [] {
    std::vector<gid_t> out(static_cast<size_t>(std::max(::getgroups(0, nullptr), 0)));
    out.resize(static_cast<size_t>(std::max(::getgroups(static_cast<int>(out.size()), out.data()), 0)));
    return out;
  }();
  return groups;
}

std::vector<gid_t> GroupsOf(uid_t user, gid_t group) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16384);
  std::vector<gid_t> groups = {group};
  if (::getpwuid_r(user, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return groups;
  int count = 256;
  groups.resize(static_cast<size_t>(count));
  if (::getgrouplist(found->pw_name, group, groups.data(), &count) < 0) count = 1;
  groups.resize(static_cast<size_t>(count));
  return groups;
}

// Of the calling thread alone: the C library's setgroups would change all threads.
void SetThreadGroups(const std::vector<gid_t>& groups) {
  (void)::syscall(SYS_setgroups, groups.size(), groups.data());
}

}  // namespace

Status ActAs(const std::string& path) {
  if (::geteuid() != 0) return Ok();
  struct stat st {};
  ActAsOneself();
  if (::stat(path.c_str(), &st) != 0) return Ok();  // who opens it will tell
  // Of the thread alone, other than seteuid: a process may upload databases of several owners. A call that changes
  // nothing answers what is in force.
  SetThreadGroups(GroupsOf(st.st_uid, st.st_gid));
  ::setfsgid(st.st_gid);
  ::setfsuid(st.st_uid);
  if (static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1))) != st.st_uid)
    return {Code::kPermission, "root may not act as the owner of " + path + " here (CAP_SETUID)"};
  return Ok();
}

void ActAsOneself() {
  if (::geteuid() != 0) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
  SetThreadGroups(OwnGroups());
}

AsOwner::AsOwner(const std::string& path) {
  struct stat st {};
  if (::geteuid() != 0 || static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1))) != 0 ||
      ::stat(path.c_str(), &st) != 0 || st.st_uid == 0)
    return;
  (void)OwnGroups();  // as they are now
  acts_ = ActAs(path).ok();
  if (!acts_) ActAsOneself();
}

AsOwner::~AsOwner() {
  if (acts_) ActAsOneself();
}

void GiveToOwner(int fd, const std::string& folder) noexcept {
  struct stat st {};
  if (::geteuid() == 0 && ::stat(folder.c_str(), &st) == 0 && st.st_uid != 0 && ::fchown(fd, st.st_uid, st.st_gid) != 0)
    return;  // then only root can read it, which the owner will be told
}

}  // namespace replica

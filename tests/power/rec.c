// A recorder for the power-loss tests (README.md): an LD_PRELOAD library that writes down, in order and with its data,
// what processes change below one folder.
//
// How to compile: CMakeLists.txt beside this file, or  cc -O2 -fPIC -shared -o power_recorder.so rec.c
//
// How to use it: set LD_PRELOAD and the variables below, or set the variables later and call power_configure().
//
//   POWER_ROOT   the folder; an absolute path without symbolic links
//   POWER_LOG    where the changes are appended (a struct record each); several processes may share it
//   POWER_LIVE   a file that each process locks (shared, byte 0) for its life, and to which it adds its pid: so the
//                test knows when all have ended
//   POWER_STORE  a folder below POWER_ROOT in which nothing can be created while POWER_DOWN exists
//   POWER_DOWN   a flag file
//   POWER_FORGE  a file with lines "real_inode inode real_mtime real_ctime mtime ctime" (times in ns): how stat shows
//                the files that survived a power loss, which in truth were written again
//   POWER_EPOCH  how many power losses there were: inode numbers of new files are moved by it, so that no new number
//                equals a forged one
//   POWER_BOOT   a file that is read instead of /proc/sys/kernel/random/boot_id
//
// How it works: the C library's functions are replaced by ones that make the same system call and append a record. A
// lock on the log that all processes share is held around both, so that the order of the records is the order of the
// changes. fsync and its kin are recorded and not passed on: the files are only ever needed as long as the machine
// runs, and the tests are much faster.
//
// What it does not see: writes through shared mappings (the -shm and the control block; both die with the machine),
// stdio streams, descriptors that were duplicated. The tests compare what they replay with what is on the disk, so
// that a miss is noticed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// The same numbers are in recorder.py.
enum operation {
  kCreate = 1,  // path (empty: a file without a name), inode
  kWrite,       // inode, offset, data
  kResize,      // inode, offset: the new size
  kRename,      // path, other path, inode
  kLink,        // other path, inode
  kUnlink,      // path
  kMakeFolder,  // path, inode
  kRemoveFolder,
  kSync,      // inode
  kDataSync,  // inode
  kFolderSync,
  kSyncAll,  // everything
  kMark,     // path: a text of the test
};

struct record {
  uint32_t magic;
  uint32_t operation;
  uint64_t inode;
  int64_t offset;
  uint32_t data_size, path_size, other_size;  // path, other path and data follow
  uint32_t pid;
  int64_t modified, changed;  // times of the inode after it, ns
};
#define RECORD_MAGIC 0x31434552

#define MAX_FD 8192
#define MAX_FORGED 4096
#define MAX_PATH 1024

struct forged {
  uint64_t real_inode, inode;
  int64_t real_modified, real_changed, modified, changed;
};

static char root[MAX_PATH];  // with a slash at its end; empty: nothing is recorded
static size_t root_size;
static char store[MAX_PATH];
static char down[MAX_PATH];
static char boot[MAX_PATH];
static char log_path[MAX_PATH];
static char live_path[MAX_PATH];
static int log_fd = -1;
static int live_fd = -1;
static uint64_t epoch;
static struct forged forged[MAX_FORGED];
static size_t forged_count;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
// By descriptor: what it has open below the root. A child of vfork shares this memory and must not change it, which is
// why `owner` is compared.
static uint64_t inode_of[MAX_FD];  // 0: nothing that is recorded
static char is_folder[MAX_FD];
static pid_t owner;

static int64_t Nanos(struct timespec t) {
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct timespec Time(int64_t nanos) {
  return (struct timespec){nanos / 1000000000, nanos % 1000000000};
}

static int RawStat(int folder, const char* path, struct stat* st, int flags) {
  return (int)syscall(SYS_newfstatat, folder, path, st, flags);
}

// ---- How files that survived a power loss are shown

static const struct forged* FindForged(uint64_t real_inode) {
  for (size_t i = 0; i < forged_count; i++)
    if (forged[i].real_inode == real_inode) return &forged[i];
  return NULL;
}

static void Forge(struct stat* st) {
  const struct forged* f = FindForged(st->st_ino);
  if (f == NULL) {
    st->st_ino += epoch << 40;
    return;
  }
  st->st_ino = f->inode;
  // Once it is changed its times are the machine's own again.
  if (f->modified == 0 || Nanos(st->st_mtim) != f->real_modified || Nanos(st->st_ctim) != f->real_changed) return;
  st->st_mtim = Time(f->modified);
  st->st_ctim = Time(f->changed);
}

// ---- The log

static int OpenHigh(const char* path, int flags) {
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC | O_CREAT, 0600);
  if (fd < 0) abort();
  // Out of the way of programs that expect the lowest number.
  const int high = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
  if (high < 0) abort();
  syscall(SYS_close, fd);
  return high;
}

// Opened anew in each process: locks belong to what was opened, and a child must not share its parent's.
static void OpenLogs(void) {
  if (log_fd >= 0) syscall(SYS_close, log_fd);
  if (live_fd >= 0) syscall(SYS_close, live_fd);
  log_fd = log_path[0] != 0 ? OpenHigh(log_path, O_WRONLY | O_APPEND) : -1;
  live_fd = live_path[0] != 0 ? OpenHigh(live_path, O_RDWR | O_APPEND) : -1;
  owner = getpid();
  if (live_fd < 0) return;
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  if (syscall(SYS_fcntl, live_fd, F_OFD_SETLKW, &lock) != 0) abort();
  char text[32];
  const int n = snprintf(text, sizeof text, "%d\n", (int)owner);
  if (syscall(SYS_write, live_fd, text, n) != n) abort();
}

static void LockLog(void) {
  pthread_mutex_lock(&mutex);
  while (log_fd >= 0 && syscall(SYS_flock, log_fd, LOCK_EX) != 0)
    if (errno != EINTR) abort();
}

static void UnlockLog(void) {
  if (log_fd >= 0) syscall(SYS_flock, log_fd, LOCK_UN);
  pthread_mutex_unlock(&mutex);
}

// Called with the log locked. `fd`, if it is one, gives the inode and its times.
static void Append(enum operation operation, int fd, uint64_t inode, int64_t offset, const char* path,
                   const char* other, const void* data, size_t size) {
  if (log_fd < 0) return;
  struct record r = {RECORD_MAGIC,
                     operation,
                     inode,
                     offset,
                     (uint32_t)size,
                     path != NULL ? (uint32_t)strlen(path) : 0,
                     other != NULL ? (uint32_t)strlen(other) : 0,
                     (uint32_t)getpid(),
                     0,
                     0};
  struct stat st;
  if (fd >= 0 && RawStat(fd, "", &st, AT_EMPTY_PATH) == 0) {
    Forge(&st);
    r.inode = st.st_ino;
    r.modified = Nanos(st.st_mtim);
    r.changed = Nanos(st.st_ctim);
  }
  struct iovec parts[4] = {
      {&r, sizeof r}, {(void*)path, r.path_size}, {(void*)other, r.other_size}, {(void*)data, size}};
  const ssize_t all = (ssize_t)(sizeof r + r.path_size + r.other_size + size);
  if (syscall(SYS_writev, log_fd, parts, 4) != all) abort();
}

// ---- Settings

static void Take(char* out, const char* name) {
  const char* value = getenv(name);
  snprintf(out, MAX_PATH, "%s", value != NULL ? value : "");
}

// Reads the variables again: for a process that was forked from one without them.
void power_configure(void) {
  pthread_mutex_lock(&mutex);
  Take(root, "POWER_ROOT");
  root_size = strlen(root);
  if (root_size != 0 && root_size + 1 < sizeof root) root[root_size++] = '/';
  root[root_size] = 0;
  Take(store, "POWER_STORE");
  Take(down, "POWER_DOWN");
  Take(boot, "POWER_BOOT");
  Take(log_path, "POWER_LOG");
  Take(live_path, "POWER_LIVE");
  const char* count = getenv("POWER_EPOCH");
  epoch = count != NULL ? strtoull(count, NULL, 10) : 0;
  forged_count = 0;
  char path[MAX_PATH];
  Take(path, "POWER_FORGE");
  FILE* in = path[0] != 0 ? fopen(path, "re") : NULL;
  for (struct forged f; in != NULL && forged_count < MAX_FORGED; forged[forged_count++] = f)
    if (fscanf(in, "%lu %lu %ld %ld %ld %ld", &f.real_inode, &f.inode, &f.real_modified, &f.real_changed, &f.modified,
               &f.changed) != 6)
      break;
  if (in != NULL) fclose(in);
  memset(inode_of, 0, sizeof inode_of);
  OpenLogs();
  pthread_mutex_unlock(&mutex);
}

// Puts a text of the test's own into the log.
void power_mark(const char* text) {
  LockLog();
  Append(kMark, -1, 0, 0, text, NULL, NULL, 0);
  UnlockLog();
}

static void BeforeFork(void) {
  pthread_mutex_lock(&mutex);
}

static void InParent(void) {
  pthread_mutex_unlock(&mutex);
}

static void InChild(void) {
  pthread_mutex_unlock(&mutex);
  OpenLogs();
}

__attribute__((constructor)) static void Begin(void) {
  pthread_atfork(BeforeFork, InParent, InChild);
  power_configure();
}

// ---- Paths

// Makes `path` absolute, without doubled slashes and one at the end. False when it does not fit.
static int Absolute(int folder, const char* path, char* out) {
  char full[2 * MAX_PATH];
  if (path == NULL) return 0;
  if (path[0] == '/') {
    if ((size_t)snprintf(full, sizeof full, "%s", path) >= sizeof full) return 0;
  } else {
    char link[64];
    char base[MAX_PATH];
    if (folder == AT_FDCWD)
      snprintf(link, sizeof link, "/proc/self/cwd");
    else
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    const ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
    if (n < 0) return 0;
    base[n] = 0;
    if ((size_t)snprintf(full, sizeof full, "%s/%s", base, path) >= sizeof full) return 0;
  }
  size_t n = 0;
  for (const char* c = full; *c != 0; c++) {
    if (*c == '/' && n > 0 && out[n - 1] == '/') continue;
    if (n + 1 >= MAX_PATH) return 0;
    out[n++] = *c;
  }
  if (n > 1 && out[n - 1] == '/') n--;
  out[n] = 0;
  return 1;
}

// True when the path lies below the root; then `out` is the path from the root on.
static int Below(int folder, const char* path, char* full, const char** out) {
  if (root_size == 0 || !Absolute(folder, path, full) || strncmp(full, root, root_size) != 0) return 0;
  *out = full + root_size;
  return 1;
}

static int StoreIsDown(const char* full) {
  const size_t n = strlen(store);
  if (n == 0 || strncmp(full, store, n) != 0 || (full[n] != '/' && full[n] != 0)) return 0;
  struct stat st;
  return RawStat(AT_FDCWD, down, &st, 0) == 0;
}

// ---- Descriptors

static int Tracked(int fd) {
  return fd >= 0 && fd < MAX_FD && inode_of[fd] != 0;
}

static int DoOpen(int folder, const char* path, int flags, mode_t mode) {
  if (boot[0] != 0 && path != NULL && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) path = boot;
  char full[MAX_PATH];
  const char* name = NULL;
  const int below = Below(folder, path, full, &name);
  if (!below) {
    const int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && fd < MAX_FD && getpid() == owner) inode_of[fd] = 0;
    return fd;
  }
  if ((flags & O_CREAT) != 0 && StoreIsDown(full)) {
    errno = EIO;
    return -1;
  }
  LockLog();
  struct stat st;
  const int nameless = (flags & O_TMPFILE) == O_TMPFILE;
  const int existed = !nameless && RawStat(AT_FDCWD, full, &st, 0) == 0;
  const int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
  const int error = errno;
  if (fd >= MAX_FD) abort();
  if (fd >= 0 && RawStat(fd, "", &st, AT_EMPTY_PATH) == 0) {
    inode_of[fd] = st.st_ino;
    is_folder[fd] = S_ISDIR(st.st_mode) != 0;
    if (!existed && !is_folder[fd])
      Append(kCreate, fd, 0, 0, nameless ? "" : name, NULL, NULL, 0);
    else if (existed && (flags & O_TRUNC) != 0)
      Append(kResize, fd, 0, 0, NULL, NULL, NULL, 0);
  }
  UnlockLog();
  errno = error;
  return fd;
}

#define MODE_OF(flags)                            \
  mode_t mode = 0;                                \
  if (((flags) & (O_CREAT | __O_TMPFILE)) != 0) { \
    va_list arguments;                            \
    va_start(arguments, flags);                   \
    mode = va_arg(arguments, mode_t);             \
    va_end(arguments);                            \
  }

int open(const char* path, int flags, ...) {
  MODE_OF(flags)
  return DoOpen(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE_OF(flags)
  return DoOpen(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE_OF(flags)
  return DoOpen(folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  MODE_OF(flags)
  return DoOpen(folder, path, flags, mode);
}
int __open_2(const char* path, int flags) {
  return DoOpen(AT_FDCWD, path, flags, 0);
}
int __open64_2(const char* path, int flags) {
  return DoOpen(AT_FDCWD, path, flags, 0);
}
int creat(const char* path, mode_t mode) {
  return DoOpen(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int close(int fd) {
  if (fd >= 0 && (fd == log_fd || fd == live_fd)) return 0;  // whoever closes all there are means its own
  if (Tracked(fd) && getpid() == owner) inode_of[fd] = 0;
  return (int)syscall(SYS_close, fd);
}

int close_range(unsigned first, unsigned last, int flags) {
  if (getpid() == owner && flags == 0)
    for (unsigned fd = first; fd <= last && fd < MAX_FD; fd++) inode_of[fd] = 0;
  const int kept[2] = {log_fd < live_fd ? log_fd : live_fd, log_fd < live_fd ? live_fd : log_fd};
  for (int i = 0; i < 2; i++) {
    if (kept[i] < 0 || (unsigned)kept[i] < first || (unsigned)kept[i] > last) continue;
    if ((unsigned)kept[i] > first && syscall(SYS_close_range, first, kept[i] - 1, flags) != 0) return -1;
    first = (unsigned)kept[i] + 1;
  }
  return first <= last ? (int)syscall(SYS_close_range, first, last, flags) : 0;
}

// ---- Contents

static ssize_t WriteParts(int fd, const struct iovec* parts, int count, off64_t at, int here) {
  const int recorded = Tracked(fd);
  if (recorded) LockLog();
  const ssize_t done = here ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0);
  const int error = errno;
  if (recorded) {
    off64_t offset = here ? syscall(SYS_lseek, fd, 0, SEEK_CUR) - done : at;
    ssize_t left = done;
    for (int i = 0; i < count && left > 0; i++) {
      const size_t n = parts[i].iov_len < (size_t)left ? parts[i].iov_len : (size_t)left;
      Append(kWrite, fd, 0, offset, NULL, NULL, parts[i].iov_base, n);
      offset += (off64_t)n;
      left -= (ssize_t)n;
    }
    UnlockLog();
  }
  errno = error;
  return done;
}
ssize_t write(int fd, const void* data, size_t size) {
  if (!Tracked(fd)) return syscall(SYS_write, fd, data, size);
  const struct iovec part = {(void*)data, size};
  return WriteParts(fd, &part, 1, 0, 1);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  if (!Tracked(fd)) return syscall(SYS_pwrite64, fd, data, size, at);
  const struct iovec part = {(void*)data, size};
  return WriteParts(fd, &part, 1, at, 0);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return pwrite64(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  return WriteParts(fd, parts, count, 0, 1);
}
ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t at) {
  return WriteParts(fd, parts, count, at, 0);
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t at) {
  return WriteParts(fd, parts, count, at, 0);
}

int ftruncate64(int fd, off64_t size) {
  if (!Tracked(fd)) return (int)syscall(SYS_ftruncate, fd, size);
  LockLog();
  const int result = (int)syscall(SYS_ftruncate, fd, size);
  const int error = errno;
  if (result == 0) Append(kResize, fd, 0, size, NULL, NULL, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int ftruncate(int fd, off_t size) {
  return ftruncate64(fd, size);
}

int truncate64(const char* path, off64_t size) {
  const int fd = open64(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const int result = ftruncate64(fd, size);
  const int error = errno;
  close(fd);
  errno = error;
  return result;
}
int truncate(const char* path, off_t size) {
  return truncate64(path, size);
}

int fallocate64(int fd, int mode, off64_t at, off64_t size) {
  if (!Tracked(fd)) return (int)syscall(SYS_fallocate, fd, mode, at, size);
  LockLog();
  const int result = (int)syscall(SYS_fallocate, fd, mode, at, size);
  const int error = errno;
  struct stat st;
  if (result == 0 && RawStat(fd, "", &st, AT_EMPTY_PATH) == 0) Append(kResize, fd, 0, st.st_size, NULL, NULL, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int fallocate(int fd, int mode, off_t at, off_t size) {
  return fallocate64(fd, mode, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  return fallocate64(fd, 0, at, size) == 0 ? 0 : errno;
}
int posix_fallocate(int fd, off_t at, off_t size) {
  return posix_fallocate64(fd, at, size);
}

// Callers fall back to reading and writing.
ssize_t copy_file_range(int in, off64_t* in_at, int out, off64_t* out_at, size_t size, unsigned flags) {
  if (!Tracked(out)) return syscall(SYS_copy_file_range, in, in_at, out, out_at, size, flags);
  errno = ENOSYS;
  return -1;
}
ssize_t sendfile64(int out, int in, off64_t* at, size_t size) {
  if (!Tracked(out)) return syscall(SYS_sendfile, out, in, at, size);
  errno = EINVAL;
  return -1;
}
ssize_t sendfile(int out, int in, off_t* at, size_t size) {
  return sendfile64(out, in, at, size);
}

// ---- Durability

static int DoSync(int fd, enum operation operation) {
  if (!Tracked(fd)) return 0;
  LockLog();
  Append(is_folder[fd] ? kFolderSync : operation, fd, 0, 0, NULL, NULL, NULL, 0);
  UnlockLog();
  return 0;
}
int fsync(int fd) {
  return DoSync(fd, kSync);
}
int fdatasync(int fd) {
  return DoSync(fd, kDataSync);
}
int syncfs(int fd) {
  if (!Tracked(fd)) return 0;
  LockLog();
  Append(kSyncAll, -1, 0, 0, NULL, NULL, NULL, 0);
  UnlockLog();
  return 0;
}
void sync(void) {
  LockLog();
  Append(kSyncAll, -1, 0, 0, NULL, NULL, NULL, 0);
  UnlockLog();
}

// ---- Names

static uint64_t InodeAt(const char* full) {
  struct stat st;
  if (RawStat(AT_FDCWD, full, &st, AT_SYMLINK_NOFOLLOW) != 0) return 0;
  Forge(&st);
  return st.st_ino;
}

static int DoRename(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  char full[MAX_PATH];
  char other[MAX_PATH];
  const char* name = NULL;
  const char* other_name = NULL;
  const int one = Below(from_folder, from, full, &name);
  const int two = Below(to_folder, to, other, &other_name);
  if (!one && !two) return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  if (one != two || (flags & ~RENAME_NOREPLACE) != 0) abort();  // not known how to replay it
  if (StoreIsDown(other)) {
    errno = EIO;
    return -1;
  }
  LockLog();
  const int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  const int error = errno;
  if (result == 0) Append(kRename, -1, InodeAt(other), 0, name, other_name, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int rename(const char* from, const char* to) {
  return DoRename(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int a, const char* from, int b, const char* to) {
  return DoRename(a, from, b, to, 0);
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
  return DoRename(a, from, b, to, flags);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) {
  char other[MAX_PATH];
  const char* other_name = NULL;
  if (!Below(to_folder, to, other, &other_name))
    return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  if (StoreIsDown(other)) {
    errno = EIO;
    return -1;
  }
  LockLog();
  const int result = (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  const int error = errno;
  if (result == 0) Append(kLink, -1, InodeAt(other), 0, NULL, other_name, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int link(const char* from, const char* to) {
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int folder, const char* path, int flags) {
  char full[MAX_PATH];
  const char* name = NULL;
  if (!Below(folder, path, full, &name)) return (int)syscall(SYS_unlinkat, folder, path, flags);
  LockLog();
  const int result = (int)syscall(SYS_unlinkat, folder, path, flags);
  const int error = errno;
  if (result == 0) Append((flags & AT_REMOVEDIR) != 0 ? kRemoveFolder : kUnlink, -1, 0, 0, name, NULL, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int unlink(const char* path) {
  return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char* path) {
  return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
int remove(const char* path) {
  if (unlink(path) == 0) return 0;
  return errno == EISDIR || errno == EPERM ? rmdir(path) : -1;
}

int mkdirat(int folder, const char* path, mode_t mode) {
  char full[MAX_PATH];
  const char* name = NULL;
  if (!Below(folder, path, full, &name)) return (int)syscall(SYS_mkdirat, folder, path, mode);
  if (StoreIsDown(full)) {
    errno = EIO;
    return -1;
  }
  LockLog();
  const int result = (int)syscall(SYS_mkdirat, folder, path, mode);
  const int error = errno;
  if (result == 0) Append(kMakeFolder, -1, InodeAt(full), 0, name, NULL, NULL, 0);
  UnlockLog();
  errno = error;
  return result;
}
int mkdir(const char* path, mode_t mode) {
  return mkdirat(AT_FDCWD, path, mode);
}

// ---- What stat shows

static int DoStat(int folder, const char* path, struct stat* st, int flags) {
  char full[MAX_PATH];
  const char* name = NULL;
  const int result = RawStat(folder, path, st, flags);
  const int of_descriptor = (flags & AT_EMPTY_PATH) != 0 && path != NULL && path[0] == 0;
  if (result == 0 && (of_descriptor ? Tracked(folder) : Below(folder, path, full, &name))) Forge(st);
  return result;
}
int stat(const char* path, struct stat* st) {
  return DoStat(AT_FDCWD, path, st, 0);
}
int lstat(const char* path, struct stat* st) {
  return DoStat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}
int fstat(int fd, struct stat* st) {
  return DoStat(fd, "", st, AT_EMPTY_PATH);
}
int fstatat(int folder, const char* path, struct stat* st, int flags) {
  return DoStat(folder, path, st, flags);
}
int stat64(const char* path, struct stat64* st) {
  return stat(path, (struct stat*)st);
}
int lstat64(const char* path, struct stat64* st) {
  return lstat(path, (struct stat*)st);
}
int fstat64(int fd, struct stat64* st) {
  return fstat(fd, (struct stat*)st);
}
int fstatat64(int folder, const char* path, struct stat64* st, int flags) {
  return DoStat(folder, path, (struct stat*)st, flags);
}

int statx(int folder, const char* path, int flags, unsigned mask, struct statx* st) {
  char full[MAX_PATH];
  const char* name = NULL;
  const int result = (int)syscall(SYS_statx, folder, path, flags, mask, st);
  const int of_descriptor = path[0] == 0;
  if (result != 0 || !(of_descriptor ? Tracked(folder) : Below(folder, path, full, &name))) return result;
  struct stat like = {0};
  like.st_ino = st->stx_ino;
  like.st_mtim = (struct timespec){st->stx_mtime.tv_sec, st->stx_mtime.tv_nsec};
  like.st_ctim = (struct timespec){st->stx_ctime.tv_sec, st->stx_ctime.tv_nsec};
  Forge(&like);
  st->stx_ino = like.st_ino;
  // The time of birth goes with the inode: it outlives the power loss, whatever file stands for it afterwards.
  if ((st->stx_mask & STATX_BTIME) != 0) {
    st->stx_btime.tv_sec = 1600000000 + (long)(like.st_ino % 100000000);
    st->stx_btime.tv_nsec = (uint32_t)(like.st_ino % 1000000000);
  }
  st->stx_mtime.tv_sec = like.st_mtim.tv_sec;
  st->stx_mtime.tv_nsec = (uint32_t)like.st_mtim.tv_nsec;
  st->stx_ctime.tv_sec = like.st_ctim.tv_sec;
  st->stx_ctime.tv_nsec = (uint32_t)like.st_ctim.tv_nsec;
  return result;
}

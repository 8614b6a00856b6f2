"""What a power loss leaves of the files: three models of file systems, and random choices within what each allows.

  strict   POSIX and nothing more: data is there up to the last fsync of the file, a name up to the last fsync of its
           folder. Of what came later any writes may be there, whole, in part or not at all; of each folder's names any
           beginning.
  journal  Like XFS: all metadata (names, sizes) is one ordered journal, of which a beginning survives; fsync of any
           file writes it out. Data is as in `strict`, so a file may have its size and read as zeros.
  ext4     data=ordered: metadata as in `journal`; what was appended is written before the size tells of it, and a file
           that was renamed over another has its data. Overwritten pages may be old or new.

The folders "app" and "rep" are file systems of their own: what one keeps says nothing about the other. With time the
kernel writes everything back, so before some moment (`aged`) all is there. A replica in a folder may be on this machine
("same") or on another that does not lose power ("remote"); S3 is always remote.
"""
from typing import NamedTuple

from disk import apply, is_shared_memory

MODELS = ("strict", "journal", "ext4")
PAGE = 4096   # of the page cache
SECTOR = 512  # what a disk writes whole

# What survives of the files, as a whole. The product's own files are named only so that the search is good at what is
# known to be dangerous: files of the replica folder that are newer or older than the database beside it.
POLICIES = ("nothing", "everything", "each-file", "each-file", "coin", "folder-first", "database-first", "spool-first",
            "state-lost")
STATE_FILES = ("state", "state-redo")


class Survivors(NamedTuple):
    """The files after a power loss."""
    files: dict    # path -> (node, content); of a folder the content is None
    times: dict    # inode -> (modified, changed), for stat
    store: dict    # of the fake S3: key -> data
    choices: dict  # what was chosen, for the report

    def lost_anything(self):
        return any(self.choices[kind] for kind in ("lost", "lost_names", "old_times")) or \
            any(cut < self.choices["at"] for cut in self.choices["metadata"].values())


def content(node, at, how, rng, aged, ordered):
    """A file's bytes after a power loss at `at`, and how many changes are not, or not all, in it.

    how: nothing | everything | prefix | pages | sectors | size | first-sector of the changes that nothing made durable,
    or a number: those up to then. ordered: as ext4 does.
    """
    durable = max(node.last_sync(at), aged)
    if ordered:
        durable = max([durable] + [when for when in node.replaced if when <= at])
    before = apply(bytearray(), (c for c in node.changes if c[0] <= min(durable, at)))
    pending = [c for c in node.changes if durable < c[0] <= at]
    if not pending or how == "nothing":
        return bytes(before), len(pending)
    if how == "everything":
        return bytes(apply(before, pending)), 0
    if isinstance(how, int):
        kept = [c for c in pending if c[0] <= how]
        return bytes(apply(before, kept)), len(pending) - len(kept)
    if how == "prefix":
        kept = rng.randint(0, len(pending))
        return bytes(apply(before, pending[:kept])), len(pending) - kept
    after = apply(bytearray(before), pending)
    if how == "first-sector":
        return bytes(after[:SECTOR] + before[SECTOR:].ljust(len(after) - SECTOR, b"\0")), len(pending)
    if ordered:
        return bytes(_ordered(before, after, rng)), len(pending)
    if how == "size":
        return bytes(before[:len(after)].ljust(len(after), b"\0")), len(pending)
    if how == "pages":
        return bytes(_pages(before, after, rng)), len(pending)
    return bytes(_sectors(before, pending, rng)), len(pending)


def _ordered(before, after, rng):
    """What was appended is there up to some page; of what was overwritten any pages are."""
    size = len(after)
    if size > len(before):
        page_end = -(-rng.randint(len(before), size) // PAGE) * PAGE
        size = min(size, rng.choice((len(before), size, page_end)))
    result = bytearray(after[:size])
    stale = rng.choice((0.2, 0.5, 0.8))
    for at in range(0, min(len(before), size), PAGE):
        if rng.random() < stale:
            end = min(at + PAGE, size, len(before))
            result[at:end] = before[at:end]
    return result


def _pages(before, after, rng):
    """Each page of the cache was written back, or not."""
    size = rng.choice((len(after), len(after), len(before)))
    result = bytearray(before[:size].ljust(size, b"\0"))
    fresh = rng.choice((0.3, 0.6, 0.9))
    for at in range(0, size, PAGE):
        if rng.random() < fresh:
            result[at:at + PAGE] = after[at:min(at + PAGE, size)]
    return result


def _sectors(before, pending, rng):
    """Each write was made, or not, or only some of its sectors."""
    result = bytearray(before)
    made = rng.choice((0.3, 0.6, 0.9))
    for change in pending:
        if rng.random() > made:
            continue
        _, offset, data = change
        if data is None or rng.random() < 0.6:
            apply(result, [change])
            continue
        end = offset + len(data)
        result.extend(bytes(max(0, end - len(result))))
        at = offset
        while at < end:
            to = min(end, (at // SECTOR + 1) * SECTOR)
            if rng.random() < 0.5:
                result[at:to] = data[at - offset:to - offset]
            at = to
    return result


class Choices:
    """Draws what a model leaves open. `given` fixes some of it:

    model, aged, replica ("same" or "remote"), policy, state_at (the state files as of then; None: as the policy says),
    metadata ({top folder: cut}), folders ({path: cut of its names}), files ({path: how}), times ("last" or "older"),
    in_flight (whether PUTs that were not answered took effect).
    """

    def __init__(self, disk, at, rng, given):
        self.disk = disk
        self.at = at
        self.rng = rng
        self.given = given
        # Everything is drawn in the same order whatever is given, so that giving one choice changes no other.
        model = rng.choice(("strict", "journal", "ext4", "ext4"))
        aged = rng.choice((disk.base, rng.randint(disk.base, at), max(disk.base, at - rng.randint(0, 80))))
        replica = rng.choice(("same", "remote"))
        policy = rng.choice(POLICIES)
        state_at = rng.choice((rng.randint(disk.base, at), max(disk.base, at - rng.randint(0, 60)), None, None))
        self.model = given.get("model", model)
        self.aged = given.get("aged", aged)
        self.replica = given.get("replica", replica)
        self.policy = given.get("policy", policy)
        self.state_at = given.get("state_at", state_at)
        self.cuts = {top: self._metadata_cut(top) for top in ("app", "rep")}
        self.lost = {}  # for the report: path -> (how, changes)
        self.lost_names = {}
        self.old_times = {}  # path -> as of when

    def remote(self, top):
        return top == "rep" and self.replica == "remote"

    def _cut(self, low, pending):
        """A point from `low` to now, best one where something changed."""
        drawn = self.rng.choice((low, self.at, self.rng.choice([low] + pending)))
        return self.at if self.policy == "everything" else low if self.policy == "nothing" else drawn

    def _metadata_cut(self, top):
        if self.remote(top):
            return self.at
        low = max([self.aged] + [c for c in self.disk.commits.get(top, ()) if c <= self.at])
        cut = self._cut(low, [c for c in self.disk.metadata.get(top, ()) if low < c <= self.at])
        return max(low, self.given.get("metadata", {}).get(top, cut))

    def names(self, folder, path, top):
        """Up to when the folder's names are there."""
        if top is None or self.remote(top):
            return self.at
        if self.model != "strict":
            return self.cuts[top]
        low = max(folder.last_sync(self.at), self.aged)
        pending = [when for when, _, _ in folder.names if low < when <= self.at]
        cut = self.given.get("folders", {}).get(path, self._cut(low, pending))
        if pending and cut < pending[-1]:
            self.lost_names[path] = [cut, len([p for p in pending if p > cut])]
        return max(cut, low)

    def how(self, path):
        """What survives of a file's writes."""
        rng = self.rng
        own = rng.choice(("nothing", "everything", "prefix", "sectors", "pages", "size"))
        whole = rng.choice(("nothing", "everything"))
        rest = rng.choice(("nothing", "nothing", "prefix"))
        most = rng.choice(("everything", "everything", "prefix"))
        in_folder = "-replica/" in path
        is_state = path.rsplit("/", 1)[-1] in STATE_FILES
        by_policy = {"nothing": "nothing",
                     "everything": "everything",
                     "each-file": own,
                     "coin": whole,
                     "folder-first": "everything" if in_folder else rest,
                     "database-first": "nothing" if in_folder else most,
                     "spool-first": "everything" if "/spool/" in path else rest,
                     "state-lost": "nothing" if is_state else most}
        how = by_policy[self.policy]
        if is_state and self.state_at is not None:
            how = self.state_at
        return self.given.get("files", {}).get(path, how)

    def report(self):
        return {"at": self.at, "model": self.model, "aged": self.aged, "replica": self.replica, "policy": self.policy,
                "state_at": self.state_at, "metadata": self.cuts if self.model != "strict" else {},
                "lost_names": self.lost_names, "lost": self.lost, "old_times": self.old_times}


def survive(disk, at, rng, given=None):
    """What is left of the disk after a power loss at `at`."""
    choices = Choices(disk, at, rng, given or {})
    files = {}

    def walk(folder, path, top):
        cut = choices.names(folder, path, top)
        for name, node in sorted(folder.names_at(cut).items()):
            below = path + "/" + name if path else name
            if node.is_folder:
                files[below] = (node, None)
                walk(node, below, top or name)
                continue
            if is_shared_memory(name):
                files[below] = (node, b"")
                continue
            how = "everything" if choices.remote(top) else choices.how(below)
            data, lost = content(node, at, how, rng, choices.aged, choices.model == "ext4")
            if lost:
                choices.lost[below] = [how, lost]
            files[below] = (node, data)

    walk(disk.root, "", None)
    times = {node.inode: node.times[-1][1:] for node, data in files.values() if data is not None and node.times}
    _age_times(disk, at, files, times, rng, choices)
    store = disk.store_at(at)
    for key, data in disk.in_flight(at):
        # The request was on its way: the store may have taken it before anybody heard of it.
        landed = rng.random() < 0.5
        if (given or {}).get("in_flight", landed) and key not in store:
            store[key] = data
    return Survivors(files, times, store, choices.report())


def _age_times(disk, at, files, times, rng, choices):
    """The times of files as of `at`; those of the database may be older than its data."""
    for path, (node, data) in files.items():
        known = [t for t in node.times if t[0] <= at]
        if data is None or not known:
            continue
        times[node.inode] = known[-1][1:]
        if not path.endswith(".db"):
            continue
        durable = max([choices.aged] + [c for c in disk.commits.get(node.top, ()) if c <= at])
        older = [t for t in known if t[0] > durable] + [t for t in known if t[0] <= durable][-1:]
        drawn = rng.choice(older)
        if choices.given.get("times", rng.choice(("last", "last", "older"))) == "older" and drawn != known[-1]:
            times[node.inode] = drawn[1:]
            choices.old_times[path] = drawn[0]

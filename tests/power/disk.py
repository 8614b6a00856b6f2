"""What happened to files and folders, as a history: which changes there were, and what made them durable when.

A Disk is made from a recording. Times are numbers of records: "at n" means after record n. The folders at the top are
file systems of their own (see models.py): "app" holds the database, "rep" the replica where it is in a folder.
"""
import bisect
import hashlib
import json
import os

from recorder import (CREATE, DATA_SYNC, DELETE, FOLDER_SYNC, LINK, MAKE_FOLDER, MARK, PUT, PUT_BEGINS, REMOVE_FOLDER,
                      RENAME, RESIZE, SYNC, SYNC_ALL, UNLINK, WRITE)


class Node:
    """An inode: a file with its changes, or a folder with the changes of its names."""

    def __init__(self, inode, is_folder, name):
        self.inode = inode
        self.is_folder = is_folder
        self.name = name       # the first one, for reports
        self.top = name.split("/")[0]
        self.changes = []      # of a file: (at, offset, bytes), or (at, size, None) when it was resized
        self.names = []        # of a folder: (at, name, node), or (at, name, None) when it was removed
        self.syncs = []        # when it was fsynced
        self.replaced = []     # when a rename put it over another file
        self.times = []        # (at, modified, changed)
        self.size = 0
        self.size_is_new = False  # changed since the last fsync: then fdatasync commits metadata too

    def last_sync(self, at):
        """The last fsync at or before; -1: never."""
        i = bisect.bisect_right(self.syncs, at)
        return self.syncs[i - 1] if i else -1

    def content(self, at):
        """Of a file, when everything up to `at` is there."""
        return apply(bytearray(), (change for change in self.changes if change[0] <= at))

    def names_at(self, at):
        names = {}
        for when, name, node in self.names:
            if when > at:
                break
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        return names


def apply(buffer, changes):
    """Makes the changes in the buffer and returns it."""
    for _, place, data in changes:
        if data is None:
            if place < len(buffer):
                del buffer[place:]
            else:
                buffer.extend(bytes(place - len(buffer)))
        else:
            if len(buffer) < place:
                buffer.extend(bytes(place - len(buffer)))
            buffer[place:place + len(data)] = data
    return buffer


class Disk:
    def __init__(self, records):
        self.records = records
        self.root = Node(0, True, "")
        self.folders = {"": self.root}  # by path as it is at the end of what was applied
        self.nodes = {0: self.root}
        self.metadata = {}  # by top folder: when names changed
        self.commits = {}   # by top folder: when a journaling file system wrote all its metadata
        self.marks = []     # (at, dict)
        self.requests = {}  # PUTs that the store has read: number -> (begun, done or None, key, data)
        self.store = []     # (at, key, data or None): the fake S3's contents
        self.base = 0       # up to here the recording only says what was there before
        self.end = len(records) - 1
        for at, record in enumerate(records):
            self._apply(at, record)

    def lookup(self, path):
        folder, name = os.path.split(path)
        parent = self.folders.get(folder)
        return parent.names_at(self.end)[name] if parent and name in parent.names_at(self.end) else None

    def _name(self, at, path, node):
        folder, name = os.path.split(path)
        self.folders[folder].names.append((at, name, node))
        self.metadata.setdefault(path.split("/")[0], []).append(at)

    def _now(self, path):
        folder, name = os.path.split(path)
        for _, other, node in reversed(self.folders[folder].names):
            if other == name:
                return node
        return None

    def _apply(self, at, r):
        operation = r.operation
        if operation == MARK:
            mark = json.loads(r.path)
            self.marks.append((at, mark))
            if mark["kind"] == "begins":
                self.base = at
        elif operation == CREATE:
            node = self.nodes[r.inode] = Node(r.inode, False, r.path or "(nameless)")
            node.size_is_new = True
            node.times.append((at, r.modified, r.changed))
            if r.path:
                self._name(at, r.path, node)
        elif operation == MAKE_FOLDER:
            node = self.nodes[r.inode] = self.folders[r.path] = Node(r.inode, True, r.path)
            self._name(at, r.path, node)
        elif operation in (RENAME, LINK):
            self._rename(at, r)
        elif operation in (UNLINK, REMOVE_FOLDER):
            if operation == REMOVE_FOLDER:
                self.folders.pop(r.path, None)
            self._name(at, r.path, None)
        elif operation == PUT_BEGINS:
            self.requests[r.offset] = (at, None, r.path, r.data)
        elif operation == PUT:
            if r.offset in self.requests:
                self.requests[r.offset] = (self.requests[r.offset][0], at, r.path, r.data)
            self.store.append((at, r.path, r.data))
        elif operation == DELETE:
            self.store.append((at, r.path, None))
        elif operation == SYNC_ALL:
            for node in self.nodes.values():
                node.syncs.append(at)
                node.size_is_new = False
            for node in self.root.names_at(at).values():
                self.commits.setdefault(node.top, []).append(at)
        elif r.inode in self.nodes:
            self._change(at, r, self.nodes[r.inode])

    def _rename(self, at, r):
        node = self.nodes[r.inode]
        if node.top == "(nameless)":
            node.top = r.other.split("/")[0]
        if r.operation == RENAME:
            if self._now(r.other) is not None:
                node.replaced.append(at)
            if node.is_folder:
                moved = [path for path in self.folders if path == r.path or path.startswith(r.path + "/")]
                for path in moved:
                    self.folders[r.other + path[len(r.path):]] = self.folders.pop(path)
            self._name(at, r.path, None)
        self._name(at, r.other, node)

    def _change(self, at, r, node):
        if r.operation == WRITE:
            node.changes.append((at, r.offset, r.data))
            node.times.append((at, r.modified, r.changed))
            if r.offset + len(r.data) > node.size:
                node.size = r.offset + len(r.data)
                node.size_is_new = True
        elif r.operation == RESIZE:
            node.changes.append((at, r.offset, None))
            node.times.append((at, r.modified, r.changed))
            node.size = r.offset
            node.size_is_new = True
        elif r.operation in (SYNC, DATA_SYNC, FOLDER_SYNC):
            node.syncs.append(at)
            if r.operation != DATA_SYNC or node.size_is_new:
                self.commits.setdefault(node.top, []).append(at)
                node.size_is_new = False

    def store_at(self, at):
        """The fake S3's contents."""
        objects = {}
        for when, key, data in self.store:
            if when > at:
                break
            if data is None:
                objects.pop(key, None)
            else:
                objects[key] = data
        return objects

    def in_flight(self, at):
        """PUTs that the store had read at that time and not answered: (key, data)."""
        return [(key, data) for begun, done, key, data in self.requests.values()
                if begun <= at and (done is None or done > at)]

    def differs_from(self, folder):
        """Compares all that was recorded with what is in the folder. Returns what differs first, or None."""
        return self._differs(self.root, folder)

    def _differs(self, node, path):
        names = node.names_at(self.end)
        found = {entry.name: entry for entry in os.scandir(path)}
        if set(names) != set(found):
            return "%s holds %s instead of %s" % (path, sorted(found), sorted(names))
        for name, child in names.items():
            if child.is_folder:
                difference = self._differs(child, os.path.join(path, name))
            elif not is_shared_memory(name):
                with open(os.path.join(path, name), "rb") as file:
                    data = file.read()
                difference = None if data == child.content(self.end) else "%s/%s has other bytes" % (path, name)
            else:
                difference = None
            if difference:
                return difference
        return None


def is_shared_memory(name):
    """Files that processes map: their content dies with the machine, and the recorder does not see it."""
    return name.endswith("-shm") or name in ("control", "control.new")


def digest(data):
    """How this suite names the content of a database."""
    return hashlib.sha256(data).hexdigest()[:16]

"""A machine that can lose its power: a folder with "app" and "rep", written again as a crash left it, and the processes
that run on it.

A slot is a folder of its own, used by one test process at a time. Its path is always the same: a replica knows the path
of its database, so states that are kept for later must be put back where they were.
"""
import fcntl
import os
import random
import shutil
import uuid

from fake_s3 import FakeS3
from launcher import Launcher
from models import Survivors
from recorder import CREATE, MAKE_FOLDER, MARK, PUT, SYNC_ALL, WRITE, Log, Processes, parse
from disk import Disk, is_shared_memory

DATABASE = "app/app.db"
SPACE = 512 << 20  # bytes that must be free; a recording has some MB


def base_folder():
    """Memory is the best place: thousands of small files are written and removed."""
    given = os.environ.get("REPLICA_POWER_DIR")
    if given:
        return given
    place = "/tmp"
    if os.access("/dev/shm", os.W_OK):
        space = os.statvfs("/dev/shm")
        if space.f_bavail * space.f_frsize > SPACE:
            place = "/dev/shm"
    return os.path.join(place, "libreplica-power-%d" % os.getuid())


class Machine:
    def __init__(self, slot=None):
        base = base_folder()
        os.makedirs(base, 0o700, exist_ok=True)
        if os.stat(base).st_uid != os.getuid():
            raise RuntimeError("%s belongs to another user: set REPLICA_POWER_DIR" % base)
        for number in range(64) if slot is None else [slot]:
            self.lock = open(os.path.join(base, "%d.lock" % number), "w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if slot is None else 0))
                self.slot = number
                break
            except BlockingIOError:
                self.lock.close()
        else:
            raise RuntimeError("64 tests use %s already" % base)
        self.folder = os.path.join(base, str(self.slot))
        shutil.rmtree(self.folder, True)
        self.root = os.path.join(self.folder, "machine")
        os.makedirs(self.root)
        self.processes = Processes(self.path("live"))
        self.s3 = FakeS3(self.path("down"))
        self.launcher = Launcher(self.processes.path)
        self.epoch = 0
        self.log = None

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def close(self):
        self.launcher.close()
        self.s3.close()
        self.processes.kill()
        shutil.rmtree(self.folder, True)
        self.lock.close()

    def run(self, job, seconds, record=False, **more):
        """Runs a job (see launcher.py) in a process of its own on this machine."""
        settings = {"POWER_ROOT": self.root, "POWER_LIVE": self.path("live"), "POWER_DOWN": self.path("down"),
                    "POWER_STORE": os.path.join(self.root, "rep"), "POWER_EPOCH": str(self.epoch),
                    "POWER_BOOT": self.path("boot")}
        if self.epoch:
            settings["POWER_FORGE"] = self.path("forge")
        if record:
            settings["POWER_LOG"] = self.path("log")
        shutil.rmtree(self.path("out"), True)
        os.makedirs(self.path("out"))
        places = {"database": os.path.join(self.root, DATABASE), "down": self.path("down"), "out": self.path("out"),
                  "s3": self.s3.endpoint}
        return self.launcher.run(dict(more, job=job, settings=settings, **places), seconds)

    def end_processes(self, seconds):
        """Waits for what was started by jobs (uploaders) to end, then ends it."""
        if not self.processes.wait(seconds):
            self.processes.kill()
        else:
            open(self.processes.path, "w").close()

    def power_on(self, survivors, rng):
        """Puts the files there as they survived, for the first boot after it."""
        shutil.rmtree(self.root)
        os.mkdir(self.root)
        forged = []
        for path, (node, data) in survivors.files.items():
            full = os.path.join(self.root, path)
            if data is None:
                os.mkdir(full)
            else:
                if is_shared_memory(path.rsplit("/", 1)[-1]):
                    data = rng.choice((b"", bytes(32768), rng.randbytes(32768)))
                with open(full, "wb") as file:
                    file.write(data)
            st = os.stat(full)
            modified, changed = survivors.times.get(node.inode, (0, 0)) if data is not None else (0, 0)
            forged.append("%d %d %d %d %d %d" % (st.st_ino, node.inode, st.st_mtime_ns, st.st_ctime_ns, modified,
                                                 changed))
        with open(self.path("forge"), "w") as file:
            file.write("\n".join(forged) + "\n")
        self.s3.objects = dict(survivors.store)
        self._boot()
        self.epoch = 1 + max((node.inode >> 40 for node, _ in survivors.files.values()), default=0)

    def _boot(self):
        with open(self.path("boot"), "w") as file:
            file.write("%s\n" % uuid.uuid4())
        self.store_works()

    def store_works(self):
        if os.path.exists(self.path("down")):
            os.remove(self.path("down"))

    def new(self):
        """A machine with an empty disk, and an empty store."""
        self.power_on(Survivors({}, {}, {}, {}), random.Random(0))
        self.epoch = 0
        for name in ("app", "rep"):
            os.mkdir(os.path.join(self.root, name))

    def start_recording(self, survivors=None):
        """From now on jobs with record=True are recorded, and PUTs. `survivors`: what the machine has from before."""
        if os.path.exists(self.path("log")):
            os.remove(self.path("log"))
        self.log = Log(self.path("log"))
        if survivors is None:
            for name in ("app", "rep"):
                self.log.append(MAKE_FOLDER, inode=os.stat(os.path.join(self.root, name)).st_ino, path=name)
        else:
            for path, (node, data) in survivors.files.items():
                modified, changed = survivors.times.get(node.inode, (0, 0))
                if data is None:
                    self.log.append(MAKE_FOLDER, inode=node.inode, path=path)
                else:
                    self.log.append(CREATE, inode=node.inode, path=path, modified=modified, changed=changed)
                    self.log.append(WRITE, inode=node.inode, data=data, modified=modified, changed=changed)
            for number, (key, data) in enumerate(survivors.store.items()):
                self.log.append(PUT, offset=-1 - number, path=key, data=data)
        self.log.append(SYNC_ALL)
        self.log.append(MARK, path='{"kind": "begins"}')
        self.s3.arrived = []
        self.s3.log = self.log

    def end_recording(self):
        """What was recorded: the log's bytes, and the disk that they make."""
        self.s3.log = self.s3.slow = self.s3.hold = None
        self.log.close()
        with open(self.path("log"), "rb") as file:
            data = file.read()
        return data, Disk(parse(data))

#!/usr/bin/python3
"""Stress with schedules and an oracle: thousands of short visits among long-living workers, readers and uploaders, all
of them delayed at random points (schedule.c) and killed at random moments.

  LIBREPLICA=$PWD/build/libreplica.so tests/stress/stress.py --seed 1 --seconds 30 [--url s3://…]

What must hold: each acknowledged TXID restores to the state that the database had at that commit (visits.py records
it); at the end the latest state is the database, a full verify says so, and nothing was ever compared or sent again
("resync"), as nobody writes without libreplica and no power is lost.

The seed decides what runs: the profile of delays, page size, uploader, how many processes of which kind. Prints one
line of JSON. A run that fails ends at once, with exit code 1, and its folder stays: `trace.txt` is what all processes
did in the seconds before (traces.py tells more).
"""
import argparse
import collections
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import traces
from oracle import FAILURES, Oracle, generic
from visits import Run

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.path.abspath(os.environ["LIBREPLICA"])
BUILD = os.environ.get("REPLICA_TEST_BUILD", os.path.dirname(LIBRARY))
COMMAND = os.path.join(BUILD, "replica")
PROFILES = ("late-threads", "slow-locks", "slow-file-locks", "slow-files", "slow-threads", "slow-processes",
            "everything")
PAGE_SIZES = (512, 1024, 4096, 4096, 4096, 16384, 65536)
UPLOADERS = ("thread", "thread", "thread", "process", "mixed", "replicate")
# How many of each run at a time: fresh processes for a visit or a few (one after the other), templates that fork a
# process for each visit, persistent processes of visiting threads, workers, readers, databases that have just begun.
KINDS = ("fresh", "template", "persistent", "worker", "reader", "young")
MIXES = ((3, 0, 0, 0, 0, 0), (1, 1, 0, 0, 0, 1), (1, 1, 1, 0, 0, 0), (1, 1, 0, 1, 0, 0), (1, 1, 1, 1, 1, 0),
         (0, 2, 0, 0, 0, 1), (1, 0, 1, 1, 0, 0), (2, 1, 1, 0, 1, 0), (1, 1, 0, 0, 0, 2))
END_TIME = 60  # seconds that a process may take to come to its end, or an uploader that is not needed any more
TRACE_SECONDS = 5


class Stress:
    def __init__(self, arguments):
        self.arguments = arguments
        rng = random.Random(arguments.seed)
        # Each is drawn also where an option gives it: the rest of a seed stays what it is.
        drawn = rng.choice(PROFILES), rng.choice(UPLOADERS), rng.choice(PAGE_SIZES)
        self.profile = arguments.profile or drawn[0]
        self.uploader = arguments.uploader or drawn[1]
        self.page_size = arguments.page_size or drawn[2]
        self.sync_interval = rng.choice(["0", "0", "20ms", "200ms", "1s"])
        self.shutdown_timeout = rng.choice(["10s", "10s", "10s", "1s", "100ms"])
        self.sync_commit = rng.choice([0, 0, 0.1, 0.4])  # share of processes with sync=commit
        self.kill_share = rng.choice([0.05, 0.08, 0.15])  # of short visits
        self.mix = dict(zip(KINDS, rng.choice(MIXES)))
        self.threads = rng.randrange(1, 4)
        self.folder = tempfile.mkdtemp(prefix="libreplica-stress-", dir=arguments.folder)
        os.mkdir(os.path.join(self.folder, "trace"))
        with open(os.path.join(self.folder, "clock"), "w") as file:
            file.write("%d" % (time.time_ns() - time.monotonic_ns()))
        self.run = Run(self.folder)
        prefix = arguments.url or "file://" + os.path.join(self.folder, "replica")
        self.url = prefix + "/app.db"
        self.plain = {k: v for k, v in os.environ.items() if not k.startswith(("REPLICA_SYNC", "SCHEDULE_"))}
        self.plain.update(LIBREPLICA=LIBRARY, REPLICA_URL=prefix, REPLICA_CONFIG="off", REPLICA_UPLOADER="thread",
                          REPLICA_SYNC_INTERVAL=self.sync_interval, REPLICA_SHUTDOWN_TIMEOUT=self.shutdown_timeout,
                          REPLICA_UPLOADER_COMMAND=COMMAND, REPLICA_DATABASES=self.run.path, STRESS_RUN=self.folder,
                          PYTHONDONTWRITEBYTECODE="1")
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.killing = False
        self.started = time.monotonic()
        self.deadline = self.started + arguments.seconds
        self.problems = []
        self.first_problem = None
        self.allowed = [re.compile(text) for text in arguments.allow]
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.children = {}  # pid → Popen

    # --- problems

    def problem(self, text):
        if self.killing:
            return  # what is killed at the end of a run that failed may fail in turn
        if any(allowed.search(text) for allowed in self.allowed):
            self.counts["allowed"] += 1
            return
        with self.lock:
            if self.first_problem is None:
                self.first_problem = time.monotonic()
                self.run.note("stress: first problem: " + text)
            if len(self.problems) < 20 and text not in self.problems:
                self.problems.append(text)
        if not self.arguments.go_on:
            self.stop.set()

    # --- processes

    def going(self):
        return not self.stop.is_set() and time.monotonic() < self.deadline

    def environment(self, rng, number, kill=0, long_living=False):
        environment = dict(self.plain)
        if rng.random() < self.sync_commit:
            environment["REPLICA_SYNC"] = "commit"
        if self.uploader == "process" or (self.uploader == "mixed" and rng.random() < 0.3):
            environment["REPLICA_UPLOADER"] = "process"
        if self.arguments.schedule:
            before = environment.get("LD_PRELOAD")
            environment["LD_PRELOAD"] = (before + ":" if before else "") + self.arguments.schedule
            environment.update(SCHEDULE_SEED=str(self.arguments.seed), SCHEDULE_PROFILE=self.profile,
                               SCHEDULE_PROCESS=str(number), SCHEDULE_KILL=str(kill),
                               SCHEDULE_TRACE=os.path.join(self.folder, "trace"),
                               SCHEDULE_RING="16384" if long_living else "1024")
        return environment

    def start(self, command, environment):
        with self.lock:
            if self.stop.is_set():
                return None
            child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                     text=True)
            self.children[child.pid] = child
            return child

    def finished(self, child, what):
        """Takes the end of a process of ours; reports one that nobody asked for."""
        _, errors = child.communicate()
        with self.lock:
            del self.children[child.pid]
        if child.returncode == -signal.SIGKILL:
            self.counts["kills"] += not self.stop.is_set()
        elif child.returncode != 0 and not self.stop.is_set():
            self.problem("a %s process ended with %d: %s" % (what, child.returncode, errors.strip()[-500:]))

    def python(self, kind, rng, number, seconds, extra=0, folder=None):
        return [sys.executable, "-S", os.path.join(HERE, "visits.py"), folder or self.folder, kind,
                str(rng.getrandbits(60)), str(number), "%.3f" % seconds, str(extra)]

    def await_child(self, child, what, kill_after):
        """Until it ends, or is killed after so many seconds; None: it is not killed."""
        try:
            child.wait(kill_after if kill_after is not None else self.arguments.seconds + END_TIME)
        except subprocess.TimeoutExpired:
            if kill_after is None and not self.stop.is_set():
                self.problem("a %s process did not come to its end: %s" % (what, where(child.pid)))
            child.kill()
        self.finished(child, what)

    def launch_fresh(self, rng, base):
        """Processes of their own for a visit or a few, one after the other."""
        count = 0
        while self.going():
            count += 1
            kill = rng.random() < self.kill_share * 2
            at_point = bool(self.arguments.schedule) and rng.random() < 0.8
            within = rng.choice([100, 300, 800]) if kill and at_point else 0
            child = self.start(self.python("fresh", rng, base + count, 0), self.environment(rng, base + count, within))
            if child is not None:
                self.await_child(child, "fresh", 0.03 + rng.random() ** 2 * 0.2 if kill and not at_point else None)

    def keep_running(self, kind, extra, rng, base):
        """One process of a kind after the other, some of them killed."""
        count = 0
        while self.going():
            count += 1
            left = self.deadline - time.monotonic()
            lifetime = min(left, rng.choice([0.3, 1, 2, 4]) * (0.5 + rng.random()))
            kill = kind != "template" and rng.random() < 0.7
            if kind == "template":
                lifetime = min(left, 5 * (0.5 + rng.random()))
            child = self.start(self.python(kind, rng, base + count, lifetime, extra),
                               self.environment(rng, base + count, 0, True))
            if child is not None:
                self.await_child(child, kind, lifetime * (0.2 + 0.8 * rng.random()) if kill else None)
            if kind in ("worker", "reader"):
                self.stop.wait(rng.random() ** 2 * 2)

    def replicate(self, rng, base):
        """`replica replicate`, killed and started again."""
        count = 0
        while self.going():
            count += 1
            child = self.start([COMMAND, "replicate"], self.environment(rng, base + count, 0, True))
            if child is None:
                return
            self.stop.wait(min(max(self.deadline - time.monotonic(), 0), 0.2 + rng.random() * 4))
            gentle = not self.going() or rng.random() < 0.3
            child.send_signal(signal.SIGTERM if gentle else signal.SIGKILL)
            self.await_child(child, "replicate", None)
            self.counts["killed_uploaders"] += not gentle
            self.stop.wait(rng.random() ** 2)

    def kill_uploaders(self, rng, _base):
        """Kills uploaders that libreplica has started for processes of this run."""
        while self.going():
            self.stop.wait(0.2 + rng.random() * 2)
            uploaders = self.uploaders()
            if uploaders and self.going() and kill_of_run(rng.choice(uploaders), self.folder):
                self.counts["kills"] += 1
                self.counts["killed_uploaders"] += 1

    def uploaders(self):
        return [pid for pid in of_run(self.folder) if pid not in self.children and "--supervised" in command_line(pid)]

    # --- checks while it runs

    def watch(self, oracle, name=""):
        """Events and notes of one database."""
        for kind, message in oracle.events():
            self.counts["events"] += 1
            self.counts[name + kind] += 1
            if kind in FAILURES or (kind == "generation" and not name and self.counts[kind] > 1):
                self.counts["resyncs"] += kind == "resync" and message.startswith("comparing")
                # What follows after the first of them tells of the same.
                if kind != "resync" or self.counts[name + kind] == 1:
                    self.problem("%s%s: %s" % (name, FAILURES.get(kind, "another generation"), message))
            elif kind == "error":
                self.errors[generic(message)] += 1
        for line in oracle.lines("notes"):
            words = line.split()
            if words[0] == "problem":
                self.problem(name + " ".join(words[1:-2]))
            elif words[0] in ("visit", "killed", "slow"):
                self.counts["kills" if words[0] == "killed" else words[0]] += 1

    def check(self, oracle, target, name=""):
        self.counts["restores"] += 1
        error = oracle.check(target)
        if error:
            self.problem(name + error)

    def observe(self, oracle):
        """Until the time is up, or something is wrong."""
        rng = random.Random(self.arguments.seed + 1)
        next_check = time.monotonic() + 1
        while self.going():
            self.stop.wait(0.05)
            self.watch(oracle)
            if time.monotonic() > next_check and self.going():
                oracle.update()
                recent = oracle.acknowledged[-rng.choice([1, 10, 1000]):]
                self.check(oracle, rng.choice(recent) if recent and rng.random() < 0.7 else "latest")
                next_check = time.monotonic() + 0.7 + rng.random()

    # --- databases that have just begun: what a few visits leave

    def keep_young(self, rng, base):
        count = 0
        while self.going():
            count += 1
            name = "young-%d" % (base + count)
            folder = os.path.join(self.folder, name)
            os.mkdir(folder)
            self.young(rng, base + count * 20, folder, name)
            if not self.stop.is_set() and not any(problem.startswith(name) for problem in self.problems):
                shutil.rmtree(folder)

    def young(self, rng, base, folder, name):
        """A database that was made without libreplica, a few visits, and its end."""
        prefix = self.arguments.url + "/" + name if self.arguments.url else "file://" + folder + "/replica"
        own = {"REPLICA_URL": prefix, "REPLICA_DATABASES": os.path.join(folder, "app.db")}
        plain = dict(self.plain, **own)
        self.oracle_process("create", folder, plain)
        visits = []
        for i in range(rng.randrange(2, 7)):
            kill = rng.choice([100, 300, 800]) if rng.random() < 0.1 and self.arguments.schedule else 0
            environment = dict(self.environment(rng, base + i, kill), **own)
            visits.append(self.start(self.python("fresh", rng, base + i, 0, 0, folder), environment))
            # Mostly one after the other.
            while len(visits) > (rng.random() < 0.3):
                child = visits.pop(0)
                if child is not None:
                    self.await_child(child, "fresh", None)
        for child in visits:
            if child is not None:
                self.await_child(child, "fresh", None)
        if self.stop.is_set():
            return
        final = self.oracle_process("finish", folder, plain)
        # Commits of before its first scan have no TXID of their own: counted from the end.
        oracle = Oracle(Run(folder), prefix + "/app.db", COMMAND, plain, (final.get("txid", 1), final.get("number", 0)))
        self.watch(oracle, name + ": ")
        for error in oracle.check_end(final, rng, 2):
            self.problem(name + ": " + error)
        self.counts["restores"] += 4
        self.counts["young"] += 1

    # --- beginning and end

    def oracle_process(self, what, folder=None, environment=None):
        """oracle.py in a process of its own."""
        done = subprocess.run([sys.executable, os.path.join(HERE, "oracle.py"), folder or self.folder, what,
                               str(self.arguments.seed), str(self.page_size)], env=environment or self.plain,
                              capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            self.problem("%s failed: %s" % (what, done.stderr.strip()[-500:]))
            return {}
        return json.loads(done.stdout or "{}")

    def go(self):
        self.oracle_process("begin")
        if self.run.base() is None:
            return self.report(None)
        self.started = time.monotonic()
        self.deadline = self.started + self.arguments.seconds
        tasks = [self.kill_uploaders]
        tasks += [self.launch_fresh] * self.mix["fresh"]
        tasks += [self.keep_young] * self.mix["young"]
        for kind, extra in (("template", self.kill_share), ("persistent", self.threads), ("worker", 0), ("reader", 0)):
            tasks += [functools.partial(self.keep_running, kind, extra)] * self.mix[kind]
        if self.uploader == "replicate":
            tasks.append(self.replicate)
        threads = [threading.Thread(target=self.guarded, args=(task, i)) for i, task in enumerate(tasks)]
        oracle = Oracle(self.run, self.url, COMMAND, self.plain)
        for thread in threads:
            thread.start()
        try:
            self.observe(oracle)
            if not self.stop.is_set():
                for thread in threads:
                    thread.join()
                self.watch(oracle)
            if not self.stop.is_set():
                self.end(oracle)
        finally:
            self.stop.set()
            self.kill_all()
            for thread in threads:
                thread.join()
        return self.report(oracle)

    def guarded(self, task, i):
        try:
            task(random.Random(self.arguments.seed * 100 + i), (i + 1) * 100000)
        except Exception as error:
            self.problem("stress: %s: %s" % (type(error).__name__, error))

    def kill_all(self):
        """Whatever of this run is still there."""
        self.killing = True
        with self.lock:
            for child in self.children.values():
                child.kill()
        for pid in of_run(self.folder):
            if pid not in self.children:
                kill_of_run(pid, self.folder)

    def end(self, oracle):
        end = time.monotonic() + END_TIME
        while of_run(self.folder) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in of_run(self.folder):
            self.problem("a process outlives the run: %s: %s" % (command_line(pid), where(pid)))
        final = self.oracle_process("finish")
        self.watch(oracle)
        self.counts["txid"] = final.get("txid", 0)
        self.counts["restores"] += self.arguments.restores + 2
        for error in oracle.check_end(final, random.Random(self.arguments.seed + 2), self.arguments.restores):
            self.problem(error)

    def report(self, oracle):
        slept = killed = 0
        for ring in traces.rings(self.folder):
            slept += ring.slept
            killed += ring.killed and ring.command == "replica"
        self.counts["killed_uploaders"] += killed
        self.counts["kills"] += killed
        counts = self.counts
        return {
            "ok": not self.problems, "seed": self.arguments.seed, "profile": self.profile, "uploader": self.uploader,
            "page_size": self.page_size, "mix": self.mix, "seconds": round(time.monotonic() - self.started, 1),
            "visits": counts["visit"], "kills": counts["kills"], "killed_uploaders": counts["killed_uploaders"],
            "young_databases": counts["young"], "commits": max(len(oracle.states) - 1, 0) if oracle else 0,
            "acknowledged": len(oracle.acknowledged) if oracle else 0, "restores": counts["restores"],
            "txid": counts["txid"], "resyncs": counts["resyncs"], "allowed": counts["allowed"],
            "slow_closes": counts["slow"], "delayed_seconds": round(slept / 1e6, 1),
            "first_problem": None if self.first_problem is None else round(self.first_problem - self.started, 1),
            "problems": self.problems, "errors": dict(self.errors.most_common(10)),
            "folder": self.folder if self.problems or self.arguments.keep else None}

    def keep_trace(self):
        """What the processes did just before the first problem; of the rings only what --keep asks for."""
        until = int((self.first_problem + 0.5) * 1e9)
        lines = traces.lines_of(self.folder, until - TRACE_SECONDS * 1000000000)
        with open(os.path.join(self.folder, "trace.txt"), "w") as out:
            traces.write([line for line in lines if line[0] < until], out)
        if not self.arguments.keep:
            shutil.rmtree(os.path.join(self.folder, "trace"), True)


# --- processes of a run, by what /proc tells

def of_run(folder):
    """Processes that have the run's folder in their environment."""
    mark = ("STRESS_RUN=%s\0" % folder).encode()
    out = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open("/proc/%s/environ" % name, "rb") as file:
                if mark in file.read():
                    out.append(int(name))
        except OSError:
            continue  # gone, or another user's
    return out


def kill_of_run(pid, folder):
    """Kills a process if it is still the run's: a number may have passed to another one. True when it did."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            if ("STRESS_RUN=%s\0" % folder).encode() not in file.read():
                return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def command_line(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def where(pid):
    """What the threads of a process wait for."""
    out = []
    try:
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/comm" % (pid, thread)) as comm, \
                    open("/proc/%d/task/%s/syscall" % (pid, thread)) as call:
                out.append("%s in system call %s" % (comm.read().strip(), " ".join(call.read().split()[:4])))
    except OSError:
        pass
    return "; ".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--profile", choices=PROFILES + ("none",), help="of the delays; default: the seed's")
    parser.add_argument("--uploader", choices=sorted(set(UPLOADERS)), help="default: the seed's")
    parser.add_argument("--page-size", type=int, help="default: the seed's")
    parser.add_argument("--restores", type=int, default=12, help="of random TXIDs, at the end")
    parser.add_argument("--url", help="default: a folder beside the database")
    parser.add_argument("--folder", help="where the run's folder is made")
    parser.add_argument("--schedule", default=os.path.join(BUILD, "tests", "schedule.so"), help="the built schedule.c")
    parser.add_argument("--no-schedule", action="store_true", help="no delays, no trace, no kills at a point")
    parser.add_argument("--allow", action="append", default=[], metavar="REGEX", help="problems that do not count")
    parser.add_argument("--go-on", action="store_true", help="also after the first problem")
    parser.add_argument("--keep", action="store_true", help="the folder, with all traces")
    arguments = parser.parse_args()
    if arguments.no_schedule:
        arguments.schedule = ""
    elif not os.path.exists(arguments.schedule):
        parser.error("%s is missing: build it, or give --schedule or --no-schedule" % arguments.schedule)
    arguments.folder = arguments.folder and os.path.abspath(arguments.folder)
    stress = Stress(arguments)
    report = stress.go()
    if report["problems"]:
        stress.keep_trace()
    elif not arguments.keep:
        shutil.rmtree(stress.folder, True)
    print(json.dumps(report))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())

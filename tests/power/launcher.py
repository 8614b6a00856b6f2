"""Starts the processes of the simulated machine quickly: one process has the recorder preloaded and everything
imported, and forks for each job. The child loads the extension, does the job, answers with JSON, and ends without
cleaning up.

Jobs are functions in workload.py, recovery.py and pinned_lives.py, named "module.function"; they get the job, a dict.
"""
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))


class Launcher:
    """The caller's side."""

    def __init__(self, slot):
        recorder = os.environ["REPLICA_POWER_RECORDER"]
        # A sanitizer's runtime, when there is one, stays the first.
        preload = ":".join(part for part in (os.environ.get("LD_PRELOAD", ""), recorder) if part)
        environment = {name: value for name, value in os.environ.items()
                       if name == "REPLICA_TEST_BUILD" or
                       not name.startswith(("REPLICA_", "LITESTREAM_", "AWS_", "POWER_"))}
        environment.update(LD_PRELOAD=preload, POWER_SLOT=slot, PYTHONDONTWRITEBYTECODE="1", REPLICA_CONFIG="off",
                           REPLICA_REQUIRED="false")
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "launcher.py")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, env=environment, text=True)

    def run(self, job, seconds):
        """The job's answer; {"hang": …} or {"crash": …} when there is none."""
        self.process.stdin.write(json.dumps(dict(job, seconds=seconds)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the launcher has ended")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def child(job, out):
    """Does the job; never returns."""
    code = 0
    try:
        module, function = job["job"].split(".")
        import recorder
        recorder.configure(job["settings"])
        answer = getattr(importlib.import_module(module), function)(job)
    except BaseException:  # whatever it is, the parent must hear of it
        answer = {"exception": traceback.format_exc()[-2000:]}
        code = 1
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(out, data):]
    os._exit(code)


def answer_of(pid, pipe, seconds):
    """Reads until the child has ended, or kills it."""
    data = b""
    end = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0, end - time.monotonic()))
        piece = os.read(pipe, 1 << 16) if ready else b""
        data += piece
        if piece:
            continue
        if not ready:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not ready:
            return {"hang": seconds}
        try:
            return json.loads(data)
        except ValueError:
            return {"crash": os.waitstatus_to_exitcode(status)}


def main():
    sys.path.insert(0, os.path.join(HERE, "..", "e2e"))  # harness.py
    # Imported before the fork, so that a child need not: the time of a job is mostly its start.
    import ctypes
    import hashlib
    import random
    import sqlite3
    import recovery
    import workload
    import pinned_lives
    for library in ("libcurl.so.4", "libcrypto.so.3", "libzstd.so.1", "libstdc++.so.6"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue  # only a matter of speed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        job = json.loads(line)
        ends = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ends[0])
            child(job, ends[1])
        os.close(ends[1])
        answer = answer_of(pid, ends[0], job["seconds"])
        os.close(ends[0])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Random power losses: records workloads, cuts the power at random points, starts again and compares (README.md).

  campaign.py --first 1 --states 1000        random states; recordings have the seeds 1, 2, 3 …
  campaign.py --first 17 --recordings 1      the states of one recording
  campaign.py --again power-failures/17003   one state that failed, from its kept recording

Each state has a seed: 1000 × that of its recording + its number. A recording depends on threads, so a seed alone gives
the same recording only nearly; a state that fails is therefore kept with its recording. Prints totals; exit code 1
after any violation.
"""
import argparse
import collections
import json
import os
import random
import sys
import time
import zlib

from disk import Disk
from machine import Machine
from models import Survivors, survive
from oracle import OK, PERSON, VIOLATION, VOID, Knowledge, judge
from recorder import parse

FIRST_STATES = 14   # of a recording
SECOND_LIVES = 2    # of a recording: lives that begin after a power loss, or after the loss of the machine
SECOND_STATES = 6   # of each of these
PROMISES = 10       # acknowledged TXIDs that a state restores
JOB_SECONDS = 120
KEPT = 5            # failed states of a kind that are kept on disk

# A power loss that loses nothing.
EVERYTHING = {"policy": "everything", "state_at": None, "times": "last"}


class Recording:
    """What was recorded in one life of a machine, and what is known of its earlier lives."""

    def __init__(self, data, job, knowledge, disk=None):
        self.data = data
        self.disk = disk or Disk(parse(data))
        self.job = job  # synchronous, destination, uploader, restore
        self.knowledge = knowledge

    def random_point(self, rng):
        """Where the power fails: near a note, near a change of names, or anywhere."""
        disk = self.disk
        low = disk.base + 1
        kind = rng.random()
        if kind < 0.35:
            at = rng.choice(disk.marks)[0] + rng.randint(-6, 12)
        elif kind < 0.6:
            names = [at for changes in disk.metadata.values() for at in changes if at >= low]
            at = rng.choice(names or [low]) + rng.randint(-2, 3)
        else:
            at = rng.randint(low, max(low, disk.end))
        return max(low, min(disk.end, at))


class State:
    """One crash state and what came of it. given: see models.Choices."""

    def __init__(self, recording, seed, depth, given=None, at=None):
        self.recording = recording
        self.seed = seed
        self.depth = depth  # how many power losses there were
        self.given = dict(given or {})
        self.rng = random.Random(seed)
        self.at = at
        drawn = recording.random_point(self.rng)
        if at is None:
            self.at = drawn
        if recording.job["destination"] == "s3" or recording.job.get("restore"):
            self.given["replica"] = "remote"
        self.survivors = survive(recording.disk, self.at, self.rng, self.given)
        self.knowledge = Knowledge(recording.knowledge).until(recording.disk, self.at)
        self.power_loss = True
        self.answer = self.verdict = self.what = None

    def check(self, machine, power_loss=True, **fixed):
        """Starts the machine with what survived, and judges. Without power_loss: goes on where the recording ended."""
        rng, job = self.rng, self.recording.job
        self.power_loss = power_loss
        if power_loss:
            machine.power_on(self.survivors, rng)
        else:
            machine.store_works()
        arguments = dict(job, seed=rng.randrange(1 << 30), promises=self.knowledge.sample(rng, PROMISES),
                         states=self.knowledge.states, rounds=rng.choice((1, 2, 3)), idle_first=rng.random() < 0.6,
                         write_first=rng.random() < 0.2, takeover=rng.random() < 0.3, history=rng.choice((0, 0, 4)))
        arguments.update(fixed)
        self.answer = machine.run("recovery.recover", JOB_SECONDS, **arguments)
        machine.end_processes(0 if "hang" in self.answer else 5)
        self.verdict, self.what = judge(self.answer, self.knowledge, job["synchronous"])
        if self.verdict == VIOLATION and power_loss and not self.survivors.lost_anything():
            self.what = "although nothing was lost: " + self.what
        return self

    def report(self):
        return {"seed": self.seed, "depth": self.depth, "verdict": self.verdict, "what": self.what,
                "job": self.recording.job, "power_loss": self.power_loss, "choices": self.survivors.choices,
                "answer": self.answer}

    def keep(self, folder, slot):
        """All that is needed to make it again."""
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "recording"), "wb") as file:
            file.write(zlib.compress(self.recording.data, 1))
        earlier = self.recording.knowledge
        kept = {"seed": self.seed, "depth": self.depth, "given": self.given, "at": self.at, "slot": slot,
                "job": self.recording.job, "states": earlier.states,
                "promises": [[*key, value] for key, value in earlier.promises.items()], "report": self.report()}
        with open(os.path.join(folder, "state.json"), "w") as file:
            json.dump(kept, file, indent=1)


def load_kept(folder):
    """The state, and the slot that it was in."""
    with open(os.path.join(folder, "state.json")) as file:
        kept = json.load(file)
    if not kept["report"]["power_loss"]:
        raise SystemExit("This state needs no power loss: run its recording again, --first %d --recordings 1" %
                         (kept["seed"] // 1000))
    with open(os.path.join(folder, "recording"), "rb") as file:
        data = zlib.decompress(file.read())
    knowledge = Knowledge()
    knowledge.promises = {(generation, txid): value for generation, txid, value in kept["promises"]}
    knowledge.states = kept["states"]
    recording = Recording(data, kept["job"], knowledge)
    return State(recording, kept["seed"], kept["depth"], kept["given"], kept["at"]), kept["slot"]


class RecordingFailed(Exception):
    pass


def record(machine, jobs, job, survivors=None, knowledge=None, hold=None):
    """Runs the jobs, (name, arguments) each, one after the other. `survivors`: what the machine was powered on with.
    hold: see FakeS3."""
    machine.start_recording(survivors)
    machine.s3.hold = hold
    machine.s3.slow = None if hold else random.Random(jobs[0][1]["seed"])
    for name, arguments in jobs:
        answer = machine.run(name, JOB_SECONDS, record=True, **dict(job, **arguments))
        if answer:
            machine.end_processes(0)
            machine.end_recording()
            raise RecordingFailed("%s: %s" % (name, json.dumps(answer)[-600:]))
        machine.end_processes(0 if arguments.get("dies") else 5)
    data, disk = machine.end_recording()
    difference = disk.differs_from(machine.root)
    if difference:
        raise RecordingFailed("the recorder missed something: " + difference)
    return Recording(data, job, knowledge or Knowledge(), disk)


def random_job(rng):
    return {"synchronous": rng.choice(("OFF", "NORMAL", "NORMAL", "NORMAL", "FULL", "FULL", "FULL")),
            "destination": rng.choice(("folder", "folder", "s3")),
            "uploader": rng.choice(("thread",) * 6 + ("process",))}


def random_lives(rng, most):
    return [("workload.live", {"seed": rng.randrange(1 << 30), "steps": rng.choice((4, 12, 30)),
                               "dies": rng.random() < 0.4}) for _ in range(rng.randint(1, most))]


def first_life(machine, seed):
    rng = random.Random(seed)
    machine.new()
    return record(machine, random_lives(rng, 3), random_job(rng))


def second_life(machine, state, rng):
    """The machine goes on after a power loss. Or it is lost with its disk, and another one restores the database."""
    job = state.recording.job
    survivors = state.survivors
    lost = survivors.choices["replica"] == "remote" and state.knowledge.promises and rng.random() < 0.35
    if lost:
        kept = {path: found for path, found in survivors.files.items() if not path.startswith("app/")}
        survivors = Survivors(kept, survivors.times, survivors.store, survivors.choices)
        job = dict(job, restore=rng.choice(("function", "command", "auto")))
    machine.power_on(survivors, rng)
    lives = random_lives(rng, 1)
    if lost:
        lives = [("workload.restore", arguments) for _, arguments in lives]
    return record(machine, lives, job, survivors, state.knowledge)


class Campaign:
    """Random states, counted."""

    def __init__(self, machine, out=None, verbose=False, results=None, first_states=FIRST_STATES,
                 second_states=SECOND_STATES):
        self.machine = machine
        self.out = out          # a folder for what failed
        self.verbose = verbose
        self.results = results  # a file for all reports
        self.first_states = first_states
        self.second_states = second_states
        self.tally = collections.Counter()  # (group, value, verdict) -> states
        self.seeds = collections.defaultdict(list)  # (verdict, what exactly) -> seeds
        self.remarks = collections.Counter()
        self.failed = []  # reports of the violations
        self.begun = time.monotonic()

    def total(self):
        return sum(count for (group, _, _), count in self.tally.items() if group == "all")

    def violations(self):
        return self.tally["all", "", VIOLATION]

    def count(self, state):
        job, model = state.recording.job, state.survivors.choices["model"]
        if not state.power_loss:
            model = "(no power loss)"
        life = "restore" if job.get("restore") else ("first", "second")[state.depth - 1]
        for group, value in (("all", ""), ("model", model), ("synchronous", job["synchronous"]), ("life", life),
                             ("destination", "%s, uploader=%s" % (job["destination"], job["uploader"]))):
            self.tally[group, value, state.verdict] += 1
        for remark in state.answer.get("remarks", ()):
            self.remarks[remark] += 1
        if state.verdict != OK:
            self.seeds[state.verdict, state.what].append(state.seed)
        if self.results:
            self.results.write(json.dumps(state.report()) + "\n")
            self.results.flush()
        if state.verdict == VIOLATION:
            self.failed.append(state.report())
            if self.out and len(self.seeds[state.verdict, state.what]) <= KEPT:
                state.keep(os.path.join(self.out, str(state.seed)), self.machine.slot)
        if self.verbose or state.verdict == VIOLATION:
            what = " (%s)" % state.what if state.what else ""
            print("%d %s %s %s: %s%s" % (state.seed, model, job["synchronous"], job["destination"], state.verdict,
                                         what), flush=True)

    def count_void(self, seed, what):
        """A recording that could not be made."""
        self.tally["all", "", VOID] += 1
        self.seeds[VOID, what[:120]].append(seed)
        print("%d void: %s" % (seed, what), flush=True)

    def try_recording(self, recording, seed, depth, states, most):
        """Its states, right after it was made. First the application just starts again: a fault that shows then needs
        no power loss, and the states would only repeat it."""
        control = State(recording, seed, depth, dict(EVERYTHING, replica="remote"), recording.disk.end)
        control.check(self.machine, power_loss=False, history=1000)
        if control.verdict == VIOLATION:
            control.what = ("without a power loss: ", "before the second power loss: ")[depth - 1] + control.what
        self.count(control)
        if control.verdict == VIOLATION:
            return []
        done = []
        for number in range(1, states):
            if self.total() >= most:
                break
            state = State(recording, seed + number, depth).check(self.machine)
            self.count(state)
            done.append(state)
        return done

    def run_recording(self, seed, most):
        """All states of one recording and of the lives that follow, until there are `most` in all."""
        try:
            recording = first_life(self.machine, seed)
        except RecordingFailed as error:
            self.count_void(1000 * seed, str(error))
            return
        states = self.try_recording(recording, 1000 * seed, 1, self.first_states, most)
        good = [state for state in states if state.verdict == OK]
        for number in range(SECOND_LIVES):
            if not good or self.total() >= most:
                return
            first = 1000 * seed + 500 + 100 * number
            rng = random.Random(first)
            try:
                second = second_life(self.machine, rng.choice(good), rng)
            except RecordingFailed as error:
                self.count_void(first, str(error))
                continue
            self.try_recording(second, first, 2, self.second_states, most)

    def print_totals(self):
        seconds = time.monotonic() - self.begun
        print("%d states in %.0f s, %.1f a second" % (self.total(), seconds, self.total() / max(seconds, 0.001)))
        for group in ("model", "synchronous", "destination", "life"):
            for value in sorted({v for g, v, _ in self.tally if g == group}):
                counts = [(self.tally[group, value, verdict], verdict) for verdict in (OK, PERSON, VIOLATION, VOID)]
                print("  %-12s %-24s %s" % (group, value, ", ".join("%d %s" % c for c in counts if c[0])))
        for verdict in (VIOLATION, PERSON, VOID):
            found = {what: seeds for (v, what), seeds in self.seeds.items() if v == verdict}
            print("%d %s" % (self.tally["all", "", verdict], verdict))
            for what, seeds in sorted(found.items(), key=lambda item: -len(item[1])):
                print("  %5d %s: %s" % (len(seeds), what, ", ".join(map(str, seeds[:6]))))
        for remark, count in self.remarks.items():
            print("%d states with a remark: %s" % (count, remark))


def run_again(folder):
    """One kept state; prints all that is known of it."""
    state, slot = load_kept(folder)
    machine = Machine(slot)
    try:
        state.check(machine)
    finally:
        machine.close()
    print(json.dumps(state.report(), indent=1))
    return 1 if state.verdict == VIOLATION else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1, help="seed of the first recording")
    parser.add_argument("--states", type=int, default=10**9)
    parser.add_argument("--recordings", type=int, default=10**9)
    parser.add_argument("--out", default="power-failures", help="folder for what failed")
    parser.add_argument("--results", help="file that gets a line of JSON for each state")
    parser.add_argument("--verbose", action="store_true", help="a line for each state")
    parser.add_argument("--again", metavar="FOLDER", help="one state that was kept")
    arguments = parser.parse_args()
    if arguments.again:
        return run_again(arguments.again)
    machine = Machine()
    results = open(arguments.results, "a") if arguments.results else None
    campaign = Campaign(machine, arguments.out, arguments.verbose, results)
    try:
        for seed in range(arguments.first, arguments.first + arguments.recordings):
            if campaign.total() >= arguments.states:
                break
            campaign.run_recording(seed, arguments.states)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        machine.close()
    campaign.print_totals()
    return 1 if campaign.violations() else 0


if __name__ == "__main__":
    sys.exit(main())

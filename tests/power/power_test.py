"""Power losses: pinned states of faults that were found, and some random ones (README.md)."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness
from campaign import EVERYTHING, Campaign, State, record
from machine import Machine
from oracle import OK
from recorder import LINK, MAKE_FOLDER, PUT, RENAME, WRITE

RANDOM_STATES = 100
RANDOM_SEED = 100
DATABASE = "app/app.db"
WAL = "app/app.db-wal"
FOLDER = "app/app.db-replica"
STATE = FOLDER + "/state"
REDO = FOLDER + "/state-redo"


class PowerLoss(unittest.TestCase):
    def setUp(self):
        self.machine = Machine()
        self.addCleanup(self.machine.close)

    def live(self, name, synchronous="FULL", destination="folder", uploader="thread", hold=None, **arguments):
        """Records one of pinned_lives.py on a new machine."""
        self.machine.new()
        job = {"synchronous": synchronous, "destination": destination, "uploader": uploader}
        return record(self.machine, [("pinned_lives." + name, dict(arguments, seed=5, dies=True))], job, hold=hold)

    def when(self, recording, what, number=-1):
        """When the last (or another) record came for which `what` is true."""
        found = [at for at, r in enumerate(recording.disk.records) if what(r)]
        self.assertTrue(found, "the recording does not have what this state needs: adapt the test")
        return found[number]

    def mark(self, recording, kind, number=-1):
        """When the application noted that."""
        found = [(at, mark) for at, mark in recording.disk.marks if mark["kind"] == kind]
        self.assertTrue(found, "there is no note of " + kind)
        self.assertTrue(found[number][1].get("ready", True), "what the state needs did not come about: " + kind)
        return found[number][0]

    def check(self, recording, at, given, hold=None, **fixed):
        """Cuts the power so and starts again: all must be well, without a person. hold: see FakeS3."""
        arguments = {"rounds": 3, "idle_first": True, "write_first": False, "takeover": False, "history": 1000}
        self.machine.s3.hold = hold
        state = State(recording, 1, 1, dict(EVERYTHING, **given), at)
        state.check(self.machine, **dict(arguments, **fixed))
        self.machine.s3.hold = None
        self.assertEqual(state.verdict, OK, "%s\n%s" % (state.what, json.dumps(state.report(), indent=1)))

    # ---- The journal is ahead of the WAL

    def test_journal_ahead_of_the_wal(self):
        """The journal has commits that the WAL lost. They are not the database's, and must not hide what comes next."""
        recording = self.live("journal_ahead", synchronous="NORMAL")
        self.mark(recording, "journal")
        for kept in ("nothing", "prefix"):
            with self.subTest(wal=kept):
                self.check(recording, recording.disk.end, {"model": "ext4", "replica": "remote", "files": {WAL: kept},
                                                           "aged": self.mark(recording, "ack")})

    # ---- The file is not what the WAL goes on from

    def test_checkpoint_without_a_sync(self):
        """With synchronous=OFF the file lost what a checkpoint had written, while the next WAL was whole: the WAL proved
        that nothing was missing."""
        recording = self.live("unsynced_checkpoint", synchronous="OFF")
        self.check(recording, recording.disk.end, {"model": "ext4", "replica": "remote", "files": {DATABASE: "nothing"},
                                                   "aged": self.mark(recording, "ack", 0)})

    # ---- A fork of the history that was forgotten

    def test_state_of_before_the_first_snapshot(self):
        """The state file is that of the beginning. What the replica has since is the database's own history, and stays
        restorable, even if the store answers the next snapshot before it answers the next log segment."""
        for checkpoint in (False, True):
            with self.subTest(checkpoint=checkpoint):
                recording = self.live("acknowledged", destination="s3", checkpoint=checkpoint)
                first = self.when(recording, lambda r: r.operation == RENAME and r.other == STATE, 0)
                self.check(recording, recording.disk.end, {"model": "ext4", "aged": first,
                                                           "files": {STATE: first, REDO: "everything"}},
                           hold=("/log/0000000000000001", "/snapshot/", 0.7))

    def test_snapshot_of_commits_whose_log_is_lost(self):
        """A snapshot was stored before the log segments that lead to it, and these are lost: what comes next must
        follow from something that is there."""
        recording = self.live("snapshot_first", destination="s3", hold=("/log/0000000000000002", "/snapshot/", 0.7))
        at = self.when(recording, lambda r: r.operation == PUT and "/snapshot/" in r.path)
        acknowledged = self.mark(recording, "ack", 1)  # of the commit in log segment 1
        self.check(recording, at, {"model": "strict", "aged": acknowledged, "in_flight": False,
                                   "files": {STATE: "nothing", REDO: "nothing"},
                                   "folders": {FOLDER + "/spool": acknowledged}})

    # ---- Folders that were not fsynced

    def test_folders_of_a_new_replica(self):
        """In a replica that is a folder, every new folder is durable before anything in it is acknowledged."""
        recording = self.live("acknowledged", checkpoint=False)
        disk = recording.disk
        made = [(at, r.path) for at, r in enumerate(disk.records)
                if r.operation == MAKE_FOLDER and r.path.startswith("rep/")]
        self.assertGreaterEqual(len(made), 4)
        for at, path in made:
            with self.subTest(lost=path):
                self.check(recording, disk.end, {"model": "strict", "replica": "same", "aged": disk.base,
                                                 "folders": {os.path.dirname(path): at - 1}})

    # ---- Refusals

    def test_torn_state_header_with_a_whole_redo(self):
        """The state file's header is torn; the redo beside it has the newer one."""
        recording = self.live("unsent")
        state = recording.disk.lookup(STATE)
        at = self.when(recording, lambda r: r.operation == WRITE and r.offset == 0 and len(r.data) >= 4096 and
                       recording.disk.nodes[r.inode] is state)
        self.check(recording, at, {"model": "journal", "replica": "remote", "aged": at - 1,
                                   "files": {STATE: "first-sector", REDO: "everything"}})

    def test_empty_state(self):
        """The state file has its name and no content, as on XFS after a rename."""
        recording = self.live("unsent")
        self.check(recording, self.mark(recording, "captured"),
                   {"model": "journal", "replica": "remote", "aged": recording.disk.base,
                    "files": {STATE: "nothing", REDO: "nothing"}})

    def test_lost_replica_folder(self):
        """The replica folder is lost, and with it commits that were not sent; the claim names this very database."""
        recording = self.live("unsent")
        made = self.when(recording, lambda r: r.operation == MAKE_FOLDER and r.path == FOLDER)
        self.check(recording, self.mark(recording, "captured"),
                   {"model": "strict", "replica": "remote", "aged": recording.disk.base, "folders": {"app": made - 1}})

    def test_lost_replica_folder_after_the_claim(self):
        """The replica folder is lost when nothing but the claim was put; the claim names this very database."""
        recording = self.live("acknowledged", checkpoint=False)
        made = self.when(recording, lambda r: r.operation == MAKE_FOLDER and r.path == FOLDER)
        claimed = self.when(recording, lambda r: r.operation in (LINK, RENAME) and r.other.endswith("/claim"), 0)
        self.check(recording, claimed, {"model": "journal", "replica": "remote", "aged": made - 1,
                                        "metadata": {"app": made - 1}})

    # ---- Without a power loss

    def test_short_visits(self):
        """Commits of a visit that closes at once are captured. If not, what is acknowledged next is another state."""
        for uploader in ("thread", "process"):
            with self.subTest(uploader=uploader):
                recording = self.live("short_visits", uploader=uploader, visits=30)
                state = State(recording, 1, 1, dict(EVERYTHING, replica="remote"), recording.disk.end)
                state.check(self.machine, power_loss=False, rounds=2, idle_first=True, write_first=False,
                            takeover=False, history=1000, promises=state.knowledge.sample(state.rng, 1000))
                self.assertEqual(state.verdict, OK, "%s\n%s" % (state.what, json.dumps(state.report(), indent=1)))

    # ---- Anything

    def test_random_states(self):
        campaign = Campaign(self.machine, first_states=10, second_states=5)
        seed = RANDOM_SEED
        while campaign.total() < RANDOM_STATES:
            campaign.run_recording(seed, RANDOM_STATES)
            seed += 1
        campaign.print_totals()
        self.assertEqual(campaign.violations(), 0, json.dumps(campaign.failed[:3], indent=1))


if __name__ == "__main__":
    harness.main()

"""The stress tool at the size of a test: short visits, delays, kills, both stores. Long campaigns: tests/stress/campaign.sh."""
import json
import os
import subprocess
import sys
import unittest

import harness

STRESS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "stress", "stress.py")


class Stress(unittest.TestCase):
    def stress(self, seed, *arguments, environment=None):
        done = subprocess.run([sys.executable, STRESS, "--seed", str(seed), "--seconds", "10", *arguments],
                              capture_output=True, text=True, env=environment, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report = json.loads(done.stdout.strip().split("\n")[-1])
        self.assertGreater(report["visits"], 0, report)
        self.assertGreater(report["restores"], 10, report)

    def test_Invariant_NoCommitLost_threads_that_upload(self):
        self.stress(1, "--uploader", "thread", "--profile", "late-threads")

    def test_Invariant_NoCommitLost_processes_that_upload(self):
        self.stress(2, "--uploader", "mixed", "--profile", "everything")

    def test_Invariant_NoCommitLost_beside_replicate(self):
        self.stress(3, "--uploader", "replicate", "--profile", "slow-locks")

    def test_Invariant_NoCommitLost_s3(self):
        harness.S3().make_bucket("stress")
        self.stress(4, "--uploader", "thread", "--url", "s3://stress/run-%d" % os.getpid(),
                    environment=harness.s3_environment())


if __name__ == "__main__":
    harness.main()

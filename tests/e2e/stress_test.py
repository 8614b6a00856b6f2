"""The stress tool at the size of a test: several processes, kills, both stores. Long campaigns: tests/stress/campaign.sh."""
import json
import os
import subprocess
import sys
import unittest

import harness

STRESS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "stress", "stress.py")
LESS = 3 if os.environ.get("REPLICA_TEST_SANITIZED") else 1


class Stress(unittest.TestCase):
    def run_stress(self, *arguments, environment=None):
        done = subprocess.run([sys.executable, STRESS] + [str(a) for a in arguments], capture_output=True, text=True,
                              env=environment, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout.strip().split("\n")[-1])

    def test_several_processes(self):
        for seed, page_size in ((1, 4096), (2, 512), (3, 65536)):
            with self.subTest(seed=seed):
                report = self.run_stress("--seed", seed, "--commits", 300 // LESS, "--processes", 3, "--page-size", page_size)
                self.assertEqual(report["resyncs"], 0, "each commit is captured as a commit")

    def test_Invariant_NoCommitLost_killed_processes_and_leaders(self):
        for seed in (4, 5):
            with self.subTest(seed=seed):
                self.run_stress("--seed", seed, "--commits", 500 // LESS, "--processes", 3, "--kills", 15)

    def test_s3(self):
        harness.S3().make_bucket("stress")
        self.run_stress("--seed", 6, "--commits", 200 // LESS, "--processes", 2, "--kills", 5, "--url",
                        "s3://stress/run-%d" % os.getpid(), environment=harness.s3_environment())


if __name__ == "__main__":
    harness.main()

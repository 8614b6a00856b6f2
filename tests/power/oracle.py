"""What must hold after a power loss, from the notes in the log; and what a state's outcome is called."""
import re

OK, PERSON, VIOLATION, VOID = "ok", "needs a person", "violation", "void"


class Knowledge:
    """What was committed and acknowledged until the power failed, in all lives of the machine."""

    def __init__(self, earlier=None):
        self.promises = dict(earlier.promises) if earlier else {}  # (generation, TXID) -> digest
        self.states = list(earlier.states) if earlier else []      # digests in the order of the commits
        self.current = set()  # what the database may be with every commit that was reported kept

    def until(self, disk, at):
        """Adds what the notes up to `at` say. Returns itself."""
        last = None
        for when, mark in disk.marks:
            if mark["kind"] == "commit":
                self.states.append(mark["digest"])
                if when > at:
                    # Under way, or done and not noted yet.
                    self.current.add(mark["digest"])
                    break
                last = mark["digest"]
            elif mark["kind"] == "ack" and when <= at and mark["generation"]:
                self.promises[mark["generation"], mark["txid"]] = mark["digest"]
        if last:
            self.current.add(last)
        return self

    def sample(self, rng, most):
        """[generation, TXID, digest] of so many promises: the last ones, and some."""
        every = [[generation, txid, value] for (generation, txid), value in self.promises.items()]
        if len(every) <= most:
            return every
        last = most // 2
        return rng.sample(every[:-last], most - last) + every[-last:]


def category(text):
    """An error without what differs from case to case."""
    text = re.sub(r"(file|s3)://[^\s;,]+|/[^\s;,]+/[^\s;,]+", "…", text)
    return re.sub(r"[0-9a-f]{16,}|\d+", "#", text.removeprefix("libreplica: "))[:100]


# The gravest first: a violation is called by the first of these that there is.
KINDS = ("acknowledged-lost", "new-acknowledged-lost", "latest-is-wrong", "latest-unrestorable", "latest-is-longer",
         "state-never-was", "history-unrestorable", "verify-finds-damage", "verify-failed", "sync-failed",
         "takeover-refused", "does-not-settle")


def name_of(problem):
    """A problem in few words, alike for all with the same cause as far as that can be told."""
    if problem.get("error"):
        return "%s: %s" % (problem["kind"], category(problem["error"]))
    if problem.get("errors"):
        return "%s (%s): %s" % (problem["kind"], problem["depth"], category(problem["errors"][0]))
    return "%s: another state is restored" % problem["kind"]


def judge(answer, knowledge, synchronous):
    """(verdict, what exactly)"""
    for kind in ("hang", "crash", "exception"):
        if kind in answer:
            return VIOLATION, "%s: %s" % (kind, str(answer[kind]).strip().split("\n")[-1][:150])
    if answer["unusable"]:
        return (VOID, "SQLite's database is damaged (synchronous=OFF)") if synchronous == "OFF" else \
            (VIOLATION, "SQLite cannot use the database: " + answer["unusable"][:80])
    if answer["problems"]:
        return VIOLATION, name_of(min(answer["problems"], key=lambda problem: KINDS.index(problem["kind"])))
    if synchronous == "FULL" and knowledge.current and answer["live"] not in knowledge.current:
        return VIOLATION, "the database lost commits although synchronous=FULL"
    if answer["refused"]:
        return PERSON, category(answer["refused"])
    return OK, ""

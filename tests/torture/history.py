"""The history of a run, and what it must not contain.

Three witnesses are compared. The *ledgers*: what clients have tried, and what was acknowledged to
them. The *runs*: what the tasks themselves have noted. The *store*: what it says in the end. A
label names one job: the first argument of its task.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from nodes import Project, Run

from jobsched import Dispatcher
from jobsched.dispatcher import PreparedJob
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store.base import Query

_NEVER = 1 << 62


class Ledger:
    """Where one client writes down what it tries and what is acknowledged to it.

    One file for each client process: a write that kill -9 cuts short tears the last line only.
    What was tried need not survive a power cut, so that is not flushed.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._batches = 0

    def dispatch(self, dispatcher: Dispatcher, jobs: Sequence[PreparedJob], labels: Sequence[str]) -> None:
        """Dispatch prepared jobs in one commit, and write down before and after."""
        batch = self._tries(jobs, labels)
        dispatcher.dispatch_many(jobs)
        self.acknowledge(batch)

    def _tries(self, jobs: Sequence[PreparedJob], labels: Sequence[str]) -> int:
        self._batches += 1
        lines = [
            f"try {self._batches} {format_id(job.id)} {job.category} {label}\n"
            for job, label in zip(jobs, labels, strict=True)
        ]
        sent = f"send {self._batches} {time.monotonic_ns()}\n"
        os.write(self._file, "".join([*lines, sent]).encode())
        return self._batches

    def acknowledge(self, batch: int) -> None:
        os.write(self._file, f"ack {batch} {time.monotonic_ns()}\n".encode())
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


class Tried(NamedTuple):
    """A job that a client has tried to dispatch; `place` orders those of one ledger. `sent` and `returned`
    are times of the machine's monotonic clock, in nanoseconds.
    """

    id: str
    label: str
    category: str
    batch: tuple[str, int]
    place: int
    acknowledged: bool
    sent: int
    returned: int


def read_ledger(path: Path) -> list[Tried]:
    """Return what a client has tried. A batch that was not sent is none."""
    text = path.read_text()
    lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
    sent = {int(line[1]): int(line[2]) for line in lines if line[0] == "send"}
    acknowledged = {int(line[1]): int(line[2]) for line in lines if line[0] == "ack"}
    tried = [line for line in lines if line[0] == "try" and int(line[1]) in sent]
    return [
        Tried(
            job,
            label,
            category,
            (path.name, int(batch)),
            place,
            int(batch) in acknowledged,
            sent[int(batch)],
            acknowledged.get(int(batch), _NEVER),
        )
        for place, (_, batch, job, category, label) in enumerate(tried)
    ]


def read_ledgers(folder: Path) -> list[Tried]:
    """Return what the clients have tried whose ledgers lie in a folder."""
    return [job for path in sorted(folder.glob("*.ledger")) for job in read_ledger(path)]


class Stored(NamedTuple):
    """What the store says of a job."""

    state: State
    category: str
    attempt: int
    crashes: int
    interruptions: int
    sequence: int
    cause: str


def read_store(project: Project) -> dict[str, Stored]:
    """Return all jobs of a project's store by id."""
    found: dict[str, Stored] = {}
    after: bytes | None = b""
    with project.store() as store:
        while after is not None:
            page = store.find(Query(limit=200, after=after))
            for job in page.jobs:
                status = job.status
                found[format_id(job.id)] = Stored(
                    status.state,
                    status.category,
                    status.attempt,
                    status.crashes,
                    status.interruptions,
                    status.sequence,
                    job.error.cause if job.error else "",
                )
            after = page.next
    return found


class History:
    """What was tried, what ran, and what is stored. Read it when nothing runs any more."""

    def __init__(self, tried: Iterable[Tried], project: Project) -> None:
        self.tried = {job.id: job for job in tried}
        self.labels = {job.label: job for job in self.tried.values()}
        self.stored = read_store(project)
        self.runs = project.runs()
        self.runs_of: Mapping[str, list[Run]] = project.runs_by_label()
        self.overlaps = [label for event, label, *_ in project.events() if event == "overlap"]

    @classmethod
    def of(cls, project: Project, ledgers: Path) -> "History":
        """Return the history of a project whose clients' ledgers lie in a folder."""
        return cls(read_ledgers(ledgers), project)

    @property
    def acknowledged(self) -> set[str]:
        return {job.id for job in self.tried.values() if job.acknowledged}

    def states(self) -> dict[str, int]:
        return {
            str(state): count for state, count in Counter(job.state for job in self.stored.values()).items()
        }

    # What must not be. Each is empty in a good history.

    def wrongs(self) -> dict[str, Collection[Any]]:
        """Return what must not be, whoever was killed, when all jobs are of tasks that complete."""
        return {
            "lost": self.lost(),
            "batches_in_part": self.torn(),
            "never_dispatched": self.phantoms(),
            "not_completed": self.unfinished(),
            "never_run": self.never_run(),
        }

    def lost(self) -> set[str]:
        """Return the ids that were acknowledged and are not stored."""
        return self.acknowledged - self.stored.keys()

    def torn(self) -> list[tuple[str, int]]:
        """Return the batches of which a part is stored."""
        batches: dict[tuple[str, int], set[bool]] = defaultdict(set)
        for job in self.tried.values():
            batches[job.batch].add(job.id in self.stored)
        return [batch for batch, found in batches.items() if len(found) > 1]

    def phantoms(self) -> set[str]:
        """Return ids that are stored and labels that ran, and that nobody has dispatched."""
        return (self.stored.keys() - self.tried.keys()) | (self.runs_of.keys() - self.labels.keys())

    def unfinished(self) -> dict[str, str]:
        """Return the labels of stored jobs that are not completed, with their states and why."""
        return {
            self.tried[job].label: f"{stored.state} {stored.cause}"
            for job, stored in self.stored.items()
            if job in self.tried and stored.state is not State.COMPLETED
        }

    def never_run(self) -> list[str]:
        """Return the labels of completed jobs that have no run with an end."""
        return [
            self.tried[job].label
            for job, stored in self.stored.items()
            if job in self.tried
            and stored.state is State.COMPLETED
            and not any(run.end for run in self.runs_of.get(self.tried[job].label, ()))
        ]

    def repeats(self) -> list[tuple[Run, Run]]:
        """Return every run that followed another of the same job, with the one before."""
        return [pair for runs in self.runs_of.values() for pair in pairwise(runs)]

    def doubled(self, is_excused: Callable[[Run, Run], bool] = lambda _, __: False) -> list[str]:
        """Return the labels that ran again without an excuse: a crash, a kill, a failure between."""
        return [after.label for before, after in self.repeats() if not is_excused(before, after)]

    def overlapping(self) -> list[str]:
        """Return the labels of which two runs went on at once, by their locks or by the clock."""
        by_clock = [after.label for before, after in self.repeats() if (before.end or 0) > after.start]
        return [*self.overlaps, *by_clock]

    def out_of_order(self, category: str) -> list[str]:
        """Return the labels of a category with one worker that started before their turn.

        The order of dispatch is that of the sequence in the store; first runs follow it, and so do
        last runs. For jobs that never failed, had no delay and the same priority.
        """
        place = {
            self.tried[job].label: stored.sequence
            for job, stored in self.stored.items()
            if job in self.tried and stored.category == category
        }
        starts = [run.label for run in self.runs if run.label in place]
        firsts = [place[label] for label in dict.fromkeys(starts)]
        lasts = [place[label] for label in dict.fromkeys(reversed(starts))][::-1]
        labels = {number: label for label, number in place.items()}
        return [
            labels[after] for order in (firsts, lasts) for before, after in pairwise(order) if before > after
        ]

    def out_of_client_order(self) -> list[str]:
        """Return the labels of acknowledged jobs whose place is before one that the same client had
        dispatched to the same category earlier.
        """
        found = []
        last: dict[tuple[str, str], int] = {}
        for job in sorted(self.tried.values(), key=lambda job: (job.batch[0], job.place)):
            if job.id in self.stored:
                key = job.batch[0], job.category
                sequence = self.stored[job.id].sequence
                if sequence < last.get(key, 0):
                    found.append(job.label)
                last[key] = sequence
        return found

    def out_of_dispatch_order(self, category: str) -> list[str]:
        """Return the labels of jobs of a category whose place is behind one that was sent, by whichever
        client, only after their own dispatch had returned. For jobs that never failed and had no delay.
        """
        found = []
        jobs = [
            job
            for job in self.tried.values()
            if job.id in self.stored and self.stored[job.id].category == category
        ]
        latest_sent, overtaker = 0, ""
        for job in sorted(jobs, key=lambda job: self.stored[job.id].sequence):
            if job.returned < latest_sent:
                found.append(f"{job.label} behind {overtaker}")
            if job.sent > latest_sent:
                latest_sent, overtaker = job.sent, job.label
        return found

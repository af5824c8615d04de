"""The history of schedules, and what it must not contain: each due time is covered by one record."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import pairwise

from nodes import Project

from jobsched.clock import from_micros
from jobsched.codec import BadRecord, decode_record
from jobsched.due_times import next_due
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.schedule import FiringKind, FiringRecord, Schedule, StoredSchedule
from jobsched.store.base import JobStore, Query

EARLY_US = 50_000
_PAGE = 200
_MANY = 3000


class Diary:
    """All records that schedules have left, read off often enough, and all definitions that they had.

    1,000 records are kept of each: it forgets none that it has seen.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[int, FiringRecord]] = defaultdict(dict)
        self.schedules: dict[str, StoredSchedule] = {}
        self.changed: list[str] = []
        """Names of schedules whose record of some due time was not the same later."""

    def read(self, store: JobStore, *, is_whole: bool = False) -> None:
        """Add what a store has, back to what is known; all, where the clock may have been set back."""
        after = ""
        while page := store.schedules(after):
            for stored in page:
                self.schedules[stored.schedule.name] = stored
                self._read_one(store, stored.schedule.name, is_whole=is_whole)
            after = page[-1].schedule.name

    def _read_one(self, store: JobStore, name: str, *, is_whole: bool) -> None:
        known = self.records[name]
        before = 0
        while page := store.firings(name, _PAGE, before):
            are_new = [record.due_at not in known for record in page]
            self.changed += [name for record in page if known.get(record.due_at, record) != record]
            known.update((record.due_at, record) for record in page)
            before = page[-1].due_at
            if not any(are_new) and not is_whole:
                return

    def of(self, name: str) -> list[FiringRecord]:
        """Return the records of a schedule's due times, in their order."""
        kinds = FiringKind.FIRED, FiringKind.SKIPPED
        return [record for _, record in sorted(self.records[name].items()) if record.kind in kinds]


def uncovered(schedule: Schedule, records: Iterable[FiringRecord], first: int, until: int) -> Iterator[str]:
    """Yield what is wrong with the records of due times from the first one on up to a time: gaps,
    overlaps, and counts that are not theirs.
    """
    due = first
    for record in records:
        if record.due_at != due:
            what = "a gap before" if record.due_at > due else "an overlap at"
            yield f"{schedule.name}: {what} {_shown(record)}, due was {from_micros(due)}"
        if next_due(schedule, record.until_at - 1) != record.until_at:
            yield f"{schedule.name}: {_shown(record)} does not end at a due time"
        count = _counted(schedule, record)
        if count != record.count and (record.is_counted or count < record.count):
            yield f"{schedule.name}: {_shown(record)} covers {count} due times"
        due = next_due(schedule, record.until_at)
    if due and due <= until:
        yield f"{schedule.name}: no record from {from_micros(due)} to {from_micros(until)}"


def _counted(schedule: Schedule, record: FiringRecord) -> int:
    """Return how many due times a record covers; not many more than it says that they are at least. Of
    thousands that is not looked for: to go through them takes minutes, and test_firing.py does.
    """
    if record.count > _MANY:
        return record.count
    count, due = 1, record.due_at
    while count <= record.count and due < record.until_at:
        due = next_due(schedule, due)
        count += 1
    return count


def early(name: str, records: Iterable[FiringRecord]) -> Iterator[str]:
    """Yield the records that were written before their time."""
    for record in records:
        if record.at < record.until_at - EARLY_US:
            yield f"{name}: {_shown(record)} at {from_micros(record.at)}"


def unordered(name: str, records: Iterable[FiringRecord]) -> Iterator[str]:
    """Yield the records that share due times with the one before."""
    for before, after in pairwise(records):
        if after.due_at <= before.until_at:
            yield f"{name}: {_shown(after)} overlaps {_shown(before)}"


def _shown(record: FiringRecord) -> str:
    count = f"{record.count}{'' if record.is_counted else '+'}"
    return f"{record.kind} {from_micros(record.due_at)} to {from_micros(record.until_at)} ({count})"


class FiredJobs:
    """The jobs in a store that schedules have fired."""

    def __init__(self, project: Project) -> None:
        self.due_of: dict[bytes, tuple[str, int]] = {}
        self.states: Counter[str] = Counter()
        self.damaged = 0
        after: bytes | None = b""
        with project.store() as store:
            while after is not None:
                page = store.find(Query(limit=_PAGE, after=after))
                for job in page.jobs:
                    self._note(job.id, job.record, job.status.state)
                after = page.next

    def _note(self, job_id: bytes, data: bytes | None, state: State) -> None:
        try:
            record = decode_record(data or b"")
        except BadRecord:
            self.damaged += 1
            return
        if record.fired_by is not None:
            self.due_of[job_id] = record.fired_by
            self.states[str(state)] += 1

    def strays(self, diary: Diary, names: Container[str]) -> Iterator[str]:
        """Yield jobs that no record has and records whose job is missing, of schedules of some names,
        which were never removed; and due times of two jobs, whosever these are.
        """
        recorded: Mapping[bytes, tuple[str, FiringRecord]] = {
            record.job: (name, record)
            for name, records in diary.records.items()
            for record in records.values()
            if record.job
        }
        for job, (name, due_at) in self.due_of.items():
            if name not in names:
                continue
            if job not in recorded:
                yield f"{name}: job {format_id(job)} due {from_micros(due_at)} is on no record"
            elif recorded[job][1].kind is FiringKind.FIRED and recorded[job][1].until_at != due_at:
                yield f"{name}: job {format_id(job)} due {from_micros(due_at)} has {_shown(recorded[job][1])}"
        for job, (name, record) in recorded.items():
            if job not in self.due_of and name in names:
                yield f"{name}: there is no job {format_id(job)} of {_shown(record)}"
        times = Counter(self.due_of.values())
        for (name, due_at), number in times.items():
            if number > 1:
                yield f"{name}: {number} jobs are due {from_micros(due_at)}"

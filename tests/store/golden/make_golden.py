"""Write the golden store of the current format, and beside it what it holds.

    python tests/store/golden/make_golden.py [FOLDER]

writes `format-N.xz`, the xz of a compacted data.mdb, and `format-N.json`. Run it once when a
release raises the format, with the code of that release; a golden store is never written again:
it shows that what a release wrote can be read by all later ones. Clock and ids are fixed, so two
runs write the same.
"""

import base64
import contextlib
import hashlib
import json
import lzma
import sys
import tempfile
import uuid
from pathlib import Path
from unittest import mock

import msgspec

from jobsched.codec import decode_arguments, decode_record, encode_record, encode_result
from jobsched.firing import fire
from jobsched.job import Attempt, JobError, JobRecord, Limit, State, Terms
from jobsched.report import Decision
from jobsched.schedule import PutSchedule, Schedule, StoredSchedule, SwitchSchedule
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import GiveBack, JobStore, NewJob, Outcome, Query, Request, Slot, StoredJob, Turn
from jobsched.store.journal_marks import Span
from jobsched.store.lmdb import LmdbStore, open_store

HERE = Path(__file__).parent
START = 1_790_000_000_000_000  # a day in September 2026, in UTC microseconds
SECOND = 1_000_000
STORE_ID = uuid.UUID("0f0e0d0c-0b0a-4908-8706-050403020100")
LONG_AGO, LATER = START - 3600 * SECOND, START + 3600 * SECOND
NARROW, WIDE = b"narrow limit key", b"a wide limit key"
UNIQUE = {
    "runs with its key": Terms(unique=b"key of one start"),
    "runs without its key": Terms(unique=b"key that is free", frees_at_start=True),
    "waits with its key": Terms(unique=b"key till it runs", frees_at_start=True),
}
"""Terms of jobs by their names."""
TRACEBACK = "Traceback (most recent call last):\n" + '  File "tasks.py", line 7, in grüße\n' * 90
SHORT = 3000  # characters of a value that are written out


class Maker:
    """Drives a store through turns, a second apart, with ids that count up."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.now = START
        self._made = 0

    def turn(self, **steps):
        """Apply a turn, a second after the one before."""
        self.now += SECOND
        return self.store.apply(Turn(now=self.now, **steps))

    def add(
        self,
        category,
        *args,
        task="shop.tasks:send",
        priority=0,
        due_at=0,
        name=None,
        terms=None,
        **kwargs,
    ):
        """Add a job; return its id."""
        self._made += 1
        job_id = ((START // 1000 + self._made) << 80 | 7 << 76 | 1 << 63 | self._made).to_bytes(16, "big")
        record = JobRecord(
            id=job_id,
            task=task,
            category=category,
            priority=priority,
            dispatched_at=self.now,
            args=msgspec.Raw(msgspec.msgpack.encode(args)),
            kwargs=msgspec.Raw(msgspec.msgpack.encode(kwargs)),
            name=name,
            max_retries=2 if priority else None,
        )
        job = NewJob(job_id, task, category, priority, due_at, encode_record(record), terms)
        self.turn(requests=[Request(jobs=[job])])
        return job_id

    def claim(self, category, worker=1):
        """Claim the first job of a category."""
        [claim] = self.turn(slots=[Slot(category, worker, 1)]).claims
        return claim

    def finish(self, category, state, *, due_at=0, **left):
        """Claim the first job of a category and end its run."""
        claim = self.claim(category)
        self._end(claim, state, due_at=due_at, **left)

    def crash(self, category, times):
        """Let the first job of a category kill its worker."""
        for number in range(times):
            self._end(self.claim(category), State.PENDING, error=JobError(f"SIGSEGV, number {number}"))

    def interrupt(self, category, times):
        """Cut off runs of the first job of a category."""
        for _ in range(times):
            claim = self.claim(category)
            self.turn(give_back=[GiveBack(claim.job, claim.number, interrupted=True)])

    def _end(self, claim, state, *, due_at=0, **left):
        started_at, ended_at = self.now, self.now + SECOND // 2
        outcome = Outcome(claim.job, claim.number, state, started_at, ended_at, due_at=due_at, **left)
        self.turn(outcomes=[outcome])


def fill(store: JobStore) -> None:
    """Put in jobs of every state, with everything that a job can have."""
    store.recover(START)  # a node's life begins: its workers have the numbers of epoch 1
    maker = Maker(store)
    _end_some(maker)
    _leave_some_waiting(maker)
    _hold_some_to_terms(maker)
    _schedule_some(maker)
    maker.turn(requests=[Request(taken=[Span("5f" * 16, 1, 7)])])
    maker.turn(requests=[Request(pause={"reports": 0})], decisions=[_decision(n) for n in range(3)])


def _schedule_some(maker: Maker) -> None:
    """Leave a schedule that waits, one that has ended, one that is not active, one with a long payload."""
    ids = (bytes([7]) * 15 + bytes([number]) for number in range(100))
    minute = 60 * SECOND
    every = Schedule(
        name="každou minutu ☕", task="shop.tasks:send", category="timed",
        trigger=["every", minute, START], args=msgspec.msgpack.encode(["x" * 5000]), overlap="queue",
        misfire="run_all", jitter_s=2.5, max_runs=50, terms=Terms(unique=b"k" * 16),
    )  # fmt: skip
    once = Schedule(name="once", task="shop.tasks:send", category="timed", trigger=["once", LONG_AGO])
    cron = Schedule(
        name="nightly", task="shop.tasks:rebuild", category="reports", source="categories.toml",
        trigger=["cron", "30 2 * * *", "Europe/Berlin", False], misfire="skip", grace_s=30.0,
    )  # fmt: skip
    due = START + minute
    puts = [
        PutSchedule(every, due, due, 0),
        PutSchedule(once, LONG_AGO, LONG_AGO, 0),
        PutSchedule(cron, LATER, LATER, 0),
    ]
    maker.turn(requests=[Request(schedules=puts)])
    for _ in range(2):
        for stored in maker.store.due_schedules(maker.now + 5 * minute, 10):
            maker.turn(firings=[fire(stored, maker.now + 5 * minute, lambda: next(ids))])
    maker.turn(requests=[Request(schedules=[SwitchSchedule("nightly", False, 0, 0)])])


def _end_some(maker: Maker) -> None:
    for result in ["naïve café ☕", None, "long " * 1200, {"nested": [1, 2.5, None, True]}]:
        maker.add("mail", "a@b.c", subject="Grüße, 世界 🎉")
        maker.finish("mail", State.COMPLETED, result=result and encode_result(result))
    maker.add("mail", "not stored")
    maker.finish("mail", State.COMPLETED, error=JobError("its result has no plain form"))
    maker.add("mail", "fails", priority=3, name="the ünlucky one")
    maker.finish("mail", State.FAILED, error=JobError("ValueError: ¡no!", TRACEBACK))
    maker.add("mail", "fails twice")
    maker.finish("mail", State.SCHEDULED, due_at=maker.now, error=JobError("TimeoutError: first"))
    maker.turn(release=10)
    maker.finish("mail", State.FAILED, error=JobError("TimeoutError: second"))
    maker.turn(requests=[Request(cancel=[maker.add("mail", "cancelled")])])
    maker.add("web.hooks", "unknown", task="gone.tasks:nowhere")
    maker.finish("web.hooks", State.PARKED, error=JobError("unknown task 'gone.tasks:nowhere'"))
    maker.add("web.hooks", "interrupted too often")
    maker.interrupt("web.hooks", 20)
    maker.add("web.hooks", "poison")
    maker.crash("web.hooks", 3)


def _leave_some_waiting(maker: Maker) -> None:
    maker.add("web.hooks", "tried once")
    maker.finish("web.hooks", State.SCHEDULED, due_at=LATER, error=JobError("OSError: try later", TRACEBACK))
    maker.add("web.hooks", "delayed", due_at=LATER + SECOND)
    maker.add("web.hooks", "overdue", due_at=maker.now + 3 * SECOND)
    maker.add("reports", "crashed twice")
    maker.crash("reports", 2)
    maker.add("reports", "first", priority=30_000)
    maker.add("reports", "last", priority=-30_000)
    for worker in (1 << 32 | 1, 1 << 32 | 2):
        maker.add("mail", f"runs at {worker}")
        maker.claim("mail", worker)
    maker.add("mail", "interrupted")
    maker.interrupt("mail", 2)
    maker.add("mail", "chunked " * 400)
    maker.add("mail", "".join(f"line {n} — " for n in range(7000)), name="about 100 KB")


def _hold_some_to_terms(maker: Maker) -> None:
    """Leave rows of attempts, unique keys, and limits: one reached, and one that is not."""
    maker.add("tried", "often", name="has attempts")
    maker.crash("tried", 2)
    error = JobError("OSError: ¡later!", TRACEBACK)
    maker.finish("tried", State.SCHEDULED, due_at=LATER, error=error, log="said — grüße\n" * 400)
    for worker, (name, terms) in enumerate(UNIQUE.items(), 1 << 32 | 5):
        maker.add("keys", name, name=name, terms=terms)
        if name.startswith("runs"):
            maker.claim("keys", worker)
    limited = Terms(limits=(Limit(WIDE, 5), Limit(NARROW, 1)))
    maker.add("limited", "first", name="runs under limits", terms=limited)
    maker.claim("limited", 1 << 32 | 3)
    maker.add("limited", "second", name="waits at a limit", terms=limited)
    assert maker.turn(slots=[Slot("limited", 1 << 32 | 4, 1)]).claims == []


def _decision(number: int) -> Decision:
    return Decision(
        at=LONG_AGO + number * SECOND,
        budget=4,
        backlog={"mail": 10 + number, "reports": 3},
        before={"mail": 2, "reports": 2},
        after={"mail": 3, "reports": 1},
        ideal={"mail": 3.08, "reports": 0.92},
        reasons={"mail": "has the larger backlog", "reports": "gives 1 worker — to mail"},
    )


def content(store: LmdbStore) -> dict:
    """Return what a store holds, as JSON has it."""
    page = store.find(Query(limit=200))
    assert page.next is None
    return {
        "jobs": {job.id.hex(): _job(store.get(job.id)) for job in page.jobs},
        "order": {str(state): _order(store, state) for state in State},
        "stats": {
            name: {
                "paused": row.paused,
                "limited": row.limited,
                **{str(state): row[state] for state in State},
            }
            for name, row in store.stats().items()
        },
        "journals": store.journals(),
        "decisions": [msgspec.structs.asdict(decision) for decision in store.decisions(100)],
        "schedules": {stored.schedule.name: _schedule(store, stored) for stored in store.schedules()},
    }


def _schedule(store: JobStore, stored: StoredSchedule) -> dict:
    return {
        **{name: _plain(value) for name, value in msgspec.structs.asdict(stored.schedule).items()},
        "state": {name: _plain(value) for name, value in msgspec.structs.asdict(stored.state).items()},
        "firings": [
            {name: _plain(value) for name, value in msgspec.structs.asdict(record).items()}
            for record in store.firings(stored.schedule.name)
        ],
    }


def _order(store: JobStore, state: State) -> list[str]:
    return [job.id.hex() for job in store.find(Query(state=state, limit=200)).jobs]


def _job(job: StoredJob | None) -> dict:
    assert job is not None
    assert job.record is not None
    record = decode_record(job.record)
    args, kwargs = decode_arguments(record)
    fields = {**msgspec.structs.asdict(record), "args": args, "kwargs": kwargs}
    return {
        "status": {name: _plain(value) for name, value in msgspec.structs.asdict(job.status).items()},
        "record": {name: _plain(value) for name, value in fields.items()},
        "result": _plain(job.result),
        "error": job.error and msgspec.structs.asdict(job.error),
        "attempts": [_attempt(attempt) for attempt in job.attempts],
    }


def _attempt(attempt: Attempt) -> dict:
    return {name: _plain(value) for name, value in msgspec.structs.asdict(attempt).items()}


def _plain(value):
    """Return a value as JSON has it, a long one as its digest."""
    if isinstance(value, State):
        return str(value)
    if isinstance(value, Terms):
        return {name: _plain(item) for name, item in msgspec.structs.asdict(value).items()}
    if isinstance(value, JobError):
        return msgspec.structs.asdict(value)
    if isinstance(value, tuple):
        return [[_plain(item.key), item.most] if isinstance(item, Limit) else item for item in value]
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    text = json.dumps(value)
    if len(text) > SHORT:
        return {"length": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return value


def make(folder: Path) -> Path:
    """Write both files to a folder; return the store's."""
    with tempfile.TemporaryDirectory() as scratch, mock.patch("uuid.uuid4", return_value=STORE_ID):
        place, copy = Path(scratch, "store"), Path(scratch, "copy")
        copy.mkdir()
        with contextlib.closing(open_store(place)) as store:
            fill(store)
            found = {"format": layout.FORMAT, "store": STORE_ID.hex, **content(store)}
            store._env.copy(str(copy), compact=True)
        packed = lzma.compress((copy / "data.mdb").read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    target = folder / f"format-{layout.FORMAT}.xz"
    target.write_bytes(packed)
    target.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return target


if __name__ == "__main__":
    made = make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
    sys.stdout.write(f"wrote {made}: {made.stat().st_size:,} bytes\n")

"""A process that writes to a store as fast as it can, until its stdin is closed.

    python churn.py STORE

Says `ready` when the first turns are on disk. Jobs wait, run, fail, are tried again and end.
"""

import select
import sys
from pathlib import Path

import msgspec

from jobsched.codec import encode_record
from jobsched.job import JobError, JobRecord, State
from jobsched.job_id import new_id
from jobsched.store.base import JobStore, NewJob, Outcome, Request, Slot, Turn
from jobsched.store.lmdb import open_store

EMPTY = msgspec.Raw(msgspec.msgpack.encode({}))
READY_AFTER = 20


def job(category: str, now: int) -> NewJob:
    """Return a job with a payload that is split, due soon."""
    job_id = new_id()
    args = msgspec.Raw(msgspec.msgpack.encode(["payload " * 400]))
    record = JobRecord(
        id=job_id, task="a:b", category=category, priority=0, dispatched_at=now, args=args, kwargs=EMPTY
    )
    return NewJob(job_id, "a:b", category, 0, now + 2 * (now % 3), encode_record(record))


def churn(store: JobStore, now: int) -> None:
    """Add three jobs, release what is due, claim some and end them in three ways."""
    jobs = [job(category, now) for category in ("mail", "mail", "reports")]
    slots = [Slot("mail", 1, 2), Slot("reports", 2, 2)]
    claims = store.apply(Turn(now=now, requests=[Request(jobs=jobs)], release=4, slots=slots)).claims
    states = (State.COMPLETED, State.SCHEDULED, State.FAILED)
    outcomes = [
        Outcome(c.job, c.number, states[c.number % 3], now, now + 1, b"\xc0", JobError("no"), due_at=now + 5)
        for c in claims
    ]
    store.apply(Turn(now=now + 1, outcomes=outcomes))


def main(place: Path) -> None:
    """Write until stdin is closed."""
    store = open_store(place)
    now = 1_000_000
    while not select.select([sys.stdin], [], [], 0)[0]:
        now += 1
        churn(store, now)
        if now == 1_000_000 + READY_AFTER:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

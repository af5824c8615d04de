"""The store's rows without a store: the fewest and fastest calls that LMDB has for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb

from jobsched.job import JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import Claim, NewJob, Outcome
from jobsched.store.lmdb_env import open_environment
from jobsched.store.lmdb_layout import Txn

__all__ = ["FloorStore", "commit_ms"]

_CATEGORY = 1  # its number in keys
_WORKER = 1 << 32 | 1  # any: of the length that they have
_BEHIND = layout.pending_prefix(_CATEGORY)
_NUMBER = 100_000  # stands for counters in what is written
_RECORD = bytes(300)  # about what a job takes
_AT = 1_800_000_000_000_000

# What is written for every job: of the length that it would have, and ready.
_PENDING, _RUNNING, _COMPLETED = (
    layout.encode_status(status)
    for status in (
        JobStatus(State.PENDING, "bench", 0, sequence=_NUMBER),
        JobStatus(
            State.IN_PROGRESS, "bench", 0, sequence=_NUMBER, attempt=1, claim=_NUMBER, worker=_WORKER
        ),
        JobStatus(
            State.COMPLETED, "bench", 0, sequence=_NUMBER, attempt=1, claim=_NUMBER, worker=_WORKER,
            started_at=_AT, ended_at=_AT,
        ),
    )
)  # fmt: skip


class FloorStore:
    """A store's file with one category, as a context. `commits` and `commit_s` count the durable ends
    of transactions.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self._env, self._dbs = open_environment(path)
        self._sequence = 0
        self._claim = 0
        self.commits = 0
        self.commit_s = 0.0

    def add(self, jobs: Sequence[NewJob]) -> None:
        """Queue jobs, in one commit."""
        with self._writing() as txn:
            first = self._sequence + 1
            self._sequence += len(jobs)
            txn.cursor(db=self._dbs.jobs).putmulti([(job.id, job.record) for job in jobs])
            txn.cursor(db=self._dbs.statuses).putmulti([(job.id, _PENDING) for job in jobs])
            rows = [
                (layout.pending_key(_CATEGORY, 0, place), job.id) for place, job in enumerate(jobs, first)
            ]
            txn.cursor(db=self._dbs.pending).putmulti(rows, append=True)

    def turn(self, ended: Sequence[Sequence[Outcome]], workers: int, batch: int) -> list[list[Claim]]:
        """End the jobs of each worker and claim its next ones, in one commit."""
        with self._writing() as txn:
            self._finish(txn, ended)
            return [self._take(txn, batch) for _ in range(workers)]

    def _finish(self, txn: Txn, ended: Iterable[Sequence[Outcome]]) -> None:
        running = txn.cursor(db=self._dbs.running)
        for outcomes in ended:  # a worker's claims follow each other
            if outcomes and running.set_key(layout.running_key(outcomes[0].claim)):
                for _ in outcomes:
                    running.delete()
        outcomes = [outcome for share in ended for outcome in share]
        txn.cursor(db=self._dbs.statuses).putmulti([(outcome.job, _COMPLETED) for outcome in outcomes])
        keys = [layout.ended_key(outcome.state, outcome.ended_at, outcome.job) for outcome in outcomes]
        txn.cursor(db=self._dbs.ended).putmulti([(key, _BEHIND) for key in keys])

    def _take(self, txn: Txn, count: int) -> list[Claim]:
        pending = txn.cursor(db=self._dbs.pending)
        if not pending.first():
            return []
        ids = list(islice(pending.iternext(keys=False), count))
        pending.first()
        for _ in ids:
            pending.delete()
        records = txn.cursor(db=self._dbs.jobs).getmulti(ids)
        claims = [
            Claim(number, _WORKER, 1, job_id, record)
            for number, (job_id, record) in enumerate(records, self._claim + 1)
        ]
        self._claim += len(claims)
        txn.cursor(db=self._dbs.statuses).putmulti([(job_id, _RUNNING) for job_id in ids])
        rows = [
            (layout.running_key(claim.number), layout.running_value(claim.job, _WORKER, _CATEGORY))
            for claim in claims
        ]
        txn.cursor(db=self._dbs.running).putmulti(rows, append=True)
        return claims

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Txn]:
        txn = self._env.begin(write=True)
        try:
            yield txn
        except BaseException:
            txn.abort()
            raise
        began = time.perf_counter()
        txn.commit()
        self.commit_s += time.perf_counter() - began
        self.commits += 1

    @property
    def ended(self) -> int:
        """How many jobs have ended."""
        with self._env.begin() as txn:
            return int(txn.stat(self._dbs.ended)["entries"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()


def commit_ms(env: lmdb.Environment, number: int) -> float:
    """Commit one bare row; return the milliseconds that it took."""
    began = time.perf_counter()
    with env.begin(write=True) as txn:
        txn.put(number.to_bytes(8, "big"), _RECORD)
    return (time.perf_counter() - began) * 1000

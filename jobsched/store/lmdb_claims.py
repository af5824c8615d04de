"""Claims in one LMDB write transaction: the first jobs of the queues go to the room at the workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from jobsched import transitions as rules
from jobsched.job import JobStatus, State
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import Claim, Slot
from jobsched.store.dealer import Dealer
from jobsched.store.lmdb_layout import CategoryRow
from jobsched.store.lmdb_rows import Rows
from jobsched.transitions import EXPIRED

__all__ = ["Claims"]


class Claims:
    """The claims' part of a turn: `made`, and the categories that are `blocked`, as their next job is
    for a worker that holds nothing else.
    """

    def __init__(self, rows: Rows, now: int) -> None:
        self._rows = rows
        self._now = now
        self.made: list[Claim] = []
        self.blocked: list[str] = []

    def begin(self, begun: Iterable[Claim]) -> list[int]:
        """Note claims of new jobs that run already; return those to which there is no such job."""
        rows = self._rows
        lost: list[int] = []
        for claim in begun:
            status = rows.status(claim.job)
            if status is None or not rules.is_new(status) or claim.number <= rows.counters.claim:
                lost.append(claim.number)
                continue
            rows.unlist(claim.job, status)
            rows.counters.claim = claim.number
            rules.claimed(status, claim=claim.number, worker=claim.worker, now=self._now)
            rows.enlist(claim.job, status)
            self.made.append(claim)
        return lost

    def fill(self, slots: Iterable[Slot]) -> None:
        """Claim pending jobs for the room at the workers."""
        rooms: dict[str, list[Slot]] = {}
        for slot in slots:
            rooms.setdefault(slot.category, []).append(slot)
        for name, of_category in rooms.items():
            row = self._rows.categories.get(name)
            if row is not None and not row.paused:
                self._fill_from(name, row, Dealer(of_category))

    def _fill_from(self, name: str, row: CategoryRow, dealer: Dealer) -> None:
        prefix = layout.pending_prefix(row.number)
        size = dealer.room
        while not dealer.is_full:
            cursor = self._rows.pending.scan()
            cursor.set_range(prefix)
            queue = list(islice(cursor, min(size, dealer.room)))
            ids = [job_id for key, job_id in queue if key.startswith(prefix)]
            taken = self._take_plain(name, ids, dealer)
            cursor.set_range(prefix)
            for _ in range(taken):
                cursor.delete()
            size = 2 * taken + 1  # where terms are common, little is read in vain
            if queue and taken == len(queue):
                continue
            if not queue or not queue[taken][0].startswith(prefix):
                return
            if not self._take(name, *queue[taken], dealer):
                return

    def _take_plain(self, name: str, queue: Sequence[bytes], dealer: Dealer) -> int:
        """Claim the first jobs of a queue as far as they have no terms; return how many. Their rows in
        the queue are left. It is the way of most jobs, and half as long as one by one.
        """
        rows, now = self._rows, self._now
        statuses = rows.statuses.plain(queue)
        ids = queue[: len(statuses)]
        workers = dealer.deal(len(ids))
        category, first = rows.categories[name].number, rows.counters.claim + 1
        running_key, running_value = layout.running_key, layout.running_value
        running: list[tuple[bytes, bytes]] = []
        records = rows.whole_records(ids)
        for number, (job_id, status, worker) in enumerate(zip(ids, statuses, workers, strict=True), first):
            rules.claimed(status, claim=number, worker=worker, now=now)
            running.append((running_key(number), running_value(job_id, worker, category)))
            record = records.get(job_id) or rows.record(job_id) or b""
            self.made.append(Claim(number, worker, status.attempt, job_id, record))
        rows.statuses.hold(ids, statuses)
        rows.running.put_all(running)
        rows.counters.claim += len(ids)
        rows.count(name, State.PENDING, -len(ids))
        rows.count(name, State.IN_PROGRESS, len(ids))
        return len(ids)

    def _take(self, name: str, key: bytes, job_id: bytes, dealer: Dealer) -> bool:
        """Take the next job out of its queue, and claim it if its terms let it start; False if it is
        for a worker that holds nothing else, and there is none.
        """
        rows = self._rows
        status = rows.status(job_id)
        if status is None:
            rows.pending.delete(key)
            rows.park_unreadable(job_id, rows.categories[name].number, State.PENDING, self._now)
            return True
        assert status.terms is not None
        if self._holds_up(key, job_id, status):
            return True
        worker = dealer.next_free() if status.terms.is_alone else dealer.next()
        if worker is None:
            self.blocked.append(name)
            return False
        rows.unlist(job_id, status)
        rows.counters.claim = number = rows.counters.claim + 1
        rules.claimed(status, claim=number, worker=worker, now=self._now)
        rows.limits.take(status.terms)
        rows.enlist(job_id, status)
        record = rows.record(job_id) or b""  # the worker finds it unreadable
        is_whole = not status.terms.is_partial
        self.made.append(Claim(number, worker, status.attempt, job_id, record, has_terms=is_whole))
        return True

    def _holds_up(self, key: bytes, job_id: bytes, status: JobStatus) -> bool:
        """Take the next job of a queue out of it, if its terms do not let it start."""
        assert status.terms is not None
        limit = self._rows.limits.reached(status.terms)
        if limit is not None:
            self._rows.pending.delete(key)
            self._rows.limits.set_aside(limit, key, job_id, status.terms)
        elif rules.is_expired(status, now=self._now):
            self._rows.cancel_for(job_id, status, EXPIRED, self._now)
        else:
            return False
        return True

"""Claims in the store in memory: the first jobs of the queues go to the room at the workers."""

from __future__ import annotations

from collections.abc import Sequence

from jobsched import transitions as rules
from jobsched.job import State
from jobsched.store.base import Claim, Slot
from jobsched.store.dealer import Dealer
from jobsched.store.memory_rows import MemoryJob, Rows
from jobsched.transitions import EXPIRED

__all__ = ["Claims"]


class Claims:
    """Gives claims their numbers; `last` is that of the last one."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.last = 0

    def begin(self, begun: Sequence[Claim], now: int) -> tuple[list[Claim], list[int]]:
        """Note claims of new jobs that run already; return those, and the numbers of the others."""
        noted: list[Claim] = []
        lost: list[int] = []
        for claim in begun:
            job = self._rows.jobs.get(claim.job)
            if job is not None and rules.is_new(job.status) and claim.number > self.last:
                self.last = claim.number - 1
                self._claim(job, claim.worker, now)
                noted.append(claim)
            else:
                lost.append(claim.number)
        return noted, lost

    def fill(self, slots: Sequence[Slot], now: int) -> tuple[list[Claim], list[str]]:
        """Claim pending jobs for the room at the workers; return where a job waits for a free one."""
        by_category: dict[str, list[Slot]] = {}
        for slot in slots:
            by_category.setdefault(slot.category, []).append(slot)
        claims: list[Claim] = []
        blocked: list[str] = []
        for name, room in by_category.items():
            category = self._rows.categories.get(name)
            if category is not None and not category.paused:
                dealer = Dealer(room)
                for row in list(category.rows[State.PENDING]):
                    if dealer.is_full:
                        break
                    job = self._rows.jobs[row[-1]]
                    if self._rows.is_at_limit(job):
                        continue
                    if rules.is_expired(job.status, now=now):
                        self._rows.cancel_for(job, EXPIRED, now)
                    else:
                        worker = dealer.next_free() if job.terms.is_alone else dealer.next()
                        if worker is None:
                            blocked.append(name)
                            break
                        claims.append(self._claim(job, worker, now))
        return claims, blocked

    def _claim(self, job: MemoryJob, worker: int, now: int) -> Claim:
        self.last += 1
        with self._rows.moving(job) as status:
            rules.claimed(status, claim=self.last, worker=worker, now=now)
        has_terms = status.terms is not None and not status.terms.is_partial
        return Claim(self.last, worker, status.attempt, job.id, job.record, has_terms)

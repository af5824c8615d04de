"""Jobs that start before their claims are committed: those that clients have just put into journals.

A commit takes longer than all else on the way of a job to an idle worker. A job in a journal is there
whatever becomes of this process, and a plain one may run again if this process does not live to commit
its claim. All that is lost then is the count of that run; so a job starts early only in the turn in
which it comes: one that kills its node is met by the next one as any other job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from jobsched.crew import Crew
from jobsched.job import State, is_final
from jobsched.store.base import (
    CategoryStats,
    Claim,
    NewJob,
    Outcome,
    Request,
    Slot,
    StoredJob,
    Turn,
    TurnResult,
)
from jobsched.supervisor import Supervisor
from jobsched.worker_link import Doom, WorkerLink

__all__ = ["HeadStart"]

_UNDONE = Doom(0, State.CANCELLED, "the claim of its job was not committed")  # 0: no job is charged


class HeadStart:
    """Hands out the claims of turns, before or after their commit. Belongs to the node's loop.

    `begun` are the claims that the next turn is to note, and `slots` where they went. `job_of` reads
    a job of the store.
    """

    def __init__(
        self,
        crew: Crew,
        supervisors: Mapping[str, Supervisor],
        job_of: Callable[[bytes], StoredJob | None],
    ) -> None:
        self._crew = crew
        self._supervisors = supervisors
        self._job_of = job_of
        self._last: int | None = None  # number of a claim; unknown until a turn is committed
        self.begun: list[Claim] = []
        self.slots: list[Slot] = []

    def begin(self, request: Request | None, stats: Mapping[str, CategoryStats], now: float) -> None:
        """Hand out the jobs of what the next turn takes in from journals, if they can start at once: where
        no other job may be before them in their queue, and each finds a worker that idles at home.
        """
        crew = self._crew
        is_known = self._last is not None and not crew.give_back
        if request is None or not is_known or not all(map(_adds_nothing, crew.outcomes)):
            return
        for category, jobs in _by_category(request).items():
            is_first = category not in stats or not (stats[category].paused or stats[category][State.PENDING])
            if is_first and category in self._supervisors:
                self._start(category, jobs, now)

    def _start(self, category: str, jobs: list[NewJob], now: float) -> None:
        workers = self._idle(category, now)[: len(jobs)]
        if len(workers) < len(jobs) or not self._are_new(jobs):
            return
        assert self._last is not None
        first = self._last + len(self.begun) + 1
        given = [
            Claim(number, worker.number, 1, job.id, job.record)
            for number, (job, worker) in enumerate(zip(jobs, workers, strict=True), first)
        ]
        slots = [Slot(category, worker.number, 0) for worker in workers]
        self._crew.pool.hand_out(given, slots, now)
        os.sched_yield()  # whom we wake may have to wait for our core
        self.begun += given
        self.slots += slots

    def _are_new(self, jobs: list[NewJob]) -> bool:
        """Say whether jobs are plain, and none of them is there: a client that has lost a node asks the next
        one for what it had written, and that comes to light later.
        """
        ids = {job.id for job in jobs} - {claim.job for claim in self.begun}
        is_plain = len(ids) == len(jobs) and all(job.terms is None for job in jobs)
        return is_plain and not any(map(self._job_of, ids))

    def _idle(self, category: str, now: float) -> list[WorkerLink]:
        """Return the workers that could start a job of their category, which it may have."""
        supervisor = self._supervisors[category]
        workers = self._crew.pool.workers.values()
        idle = [worker for worker in workers if worker.is_idle and worker.home == category]
        most = supervisor.starts_left(now)
        if supervisor.settings.max_workers is not None:
            busy = sum(category in (worker.serving, worker.succeeding) for worker in workers if worker.held)
            room = max(0, supervisor.settings.max_workers - busy)
            most = room if most is None else min(most, room)
        return idle[:most]

    def hand_out(self, turn: Turn, result: TurnResult, now: float) -> None:
        """Hand out, after the commit, the claims that have not been handed out before."""
        if result.claims:
            rest = [claim for claim in result.claims if claim not in self.begun]
            self._crew.give_back += self._crew.pool.hand_out(rest, turn.slots, now)
        self._take_back(claim for claim in self.begun if claim not in result.claims)
        self._last = result.last_claim

    def undo(self) -> None:
        """Take back what was begun, as nothing was committed."""
        self._take_back(self.begun)
        self._last = None

    def _take_back(self, claims: Iterable[Claim]) -> None:
        """Have claims undone that the store does not have: who has started is killed, and what it runs is
        claimed anew once it is gone. Their numbers may be those of other claims by then.
        """
        for claim in claims:
            worker = self._crew.pool.workers[claim.worker]
            worker.revoke()
            if worker.held and not worker.is_leaving:
                worker.doom = _UNDONE
                self._crew.pool.preloader.kill(worker.number)
        self.begun, self.slots = [], []

    @property
    def is_undoing(self) -> bool:
        """Whether a job may still run whose claim was not committed: nothing is to be claimed meanwhile."""
        return any(worker.doom is _UNDONE for worker in self._crew.pool.workers.values())


def _adds_nothing(outcome: Outcome) -> bool:
    """Say whether no job goes to a queue by an outcome."""
    return is_final(outcome.state) and outcome.carried is None


def _by_category(request: Request) -> dict[str, list[NewJob]]:
    """Return the jobs that go to queues at once."""
    jobs: dict[str, list[NewJob]] = {}
    for job in request.jobs:
        if not job.due_at:
            jobs.setdefault(job.category, []).append(job)
    return jobs

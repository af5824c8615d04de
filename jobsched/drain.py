"""The orderly end of a node: running jobs end in the grace time, or go back to their place."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from jobsched.crew import Crew
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store.base import CategoryStats, JobStore, Turn

__all__ = ["Drain", "is_settled"]

log = logging.getLogger(__name__)

_KILL_PATIENCE_S = 5.0


def is_settled(stats: Mapping[str, CategoryStats], configured: Collection[str]) -> bool:
    """Say whether nothing is pending, running or scheduled that a node could ever run; not in categories that
    are paused, or not configured.
    """
    for name, of_category in stats.items():
        waits = of_category[State.PENDING] or of_category[State.SCHEDULED]
        if of_category[State.IN_PROGRESS] or (waits and name in configured and not of_category.paused):
            return False
    return True


class Drain:
    """A drain under way, from its beginning on. Belongs to the node's loop.

    `put_back` counts the jobs that were cut off.
    """

    def __init__(self, crew: Crew, grace_s: float, now: float) -> None:
        self._crew = crew
        self._grace_s = grace_s
        self._until = now + grace_s
        self.put_back = 0
        crew.is_draining = True
        crew.give_back += crew.pool.dismiss()
        self._running = {worker.held[0].claim for worker in crew.pool.workers.values() if worker.held}
        if self._running:
            log.info("draining: %d jobs run, %g s of grace", len(self._running), grace_s)

    @property
    def is_over(self) -> bool:
        """Whether all workers are gone, and what they left is on disk."""
        return not self._crew.pool.workers and not self._crew.has_news

    def timeout_s(self, now: float) -> float:
        """Return the seconds until it has to hurry."""
        return max(0.0, self._until - now)

    def step(self, now: float, *, at_once: bool) -> None:
        """Kill what still runs when the grace is over, or `at_once`."""
        if at_once and not self._crew.is_killing:
            self._until = min(self._until, now)
        if now < self._until or not self._crew.pool.workers:
            return
        if self._crew.is_killing:
            self._crew.replace()
            return
        self._crew.is_killing = True
        self._until = now + _KILL_PATIENCE_S
        log.warning("killing %d workers: their jobs go back to their place", len(self._crew.pool.workers))
        self._crew.pool.kill()

    def note(self, turn: Turn, store: JobStore) -> None:
        """Say what became of each job that was running, once it is on disk: the store may know
        better than the outcome, as one that was cut off and is to run at most once has failed.
        """
        news = [(outcome.job, outcome.claim, False) for outcome in turn.outcomes]
        news += [(back.job, back.claim, True) for back in turn.give_back if back.interrupted]
        for job, claim, is_cut_off in news:
            if claim not in self._running:
                continue
            self._running.discard(claim)
            stored = store.get(job)
            state = None if stored is None else stored.status.state
            self.put_back += is_cut_off
            if is_cut_off and state is State.PENDING:
                log.warning("job=%s put back: it outlasted the stop", format_id(job))
            else:
                log.info("job=%s %s%s", format_id(job), state, ": it outlasted the stop" * is_cut_off)

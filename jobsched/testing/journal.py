"""The journal of an app: what was dispatched, what ran, and all events, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobsched.context import current
from jobsched.dispatcher import Job
from jobsched.event import Event
from jobsched.job_id import format_id
from jobsched.store.base import Claim, JobStore, NewJob, Outcome, Turn, TurnResult
from jobsched.testing.record import Dispatched, Run, dispatched_job, run_of
from jobsched.witness import Witness

__all__ = ["Journal"]


class Journal:
    """Outlives the nodes of an app. `handle` makes the handle of a job; `dispatched` is by id."""

    def __init__(self, store: JobStore, handle: Callable[[bytes], Job]) -> None:
        self._store = store
        self._handle = handle
        self._witness = Witness(store.get)
        self.dispatched: dict[bytes, Dispatched] = {}
        self.runs: list[Run] = []
        self.events: list[Event] = []

    def note(self, turn: Turn, result: TurnResult) -> None:
        """Note what a turn has done; its new jobs in the order in which it adds them."""
        self.events += self._witness.events(turn, result)
        here = current.get(None)
        for outcome in turn.outcomes:
            if outcome.carried is not None:
                self._add(outcome.carried.jobs, turn.now, format_id(outcome.job))
        for request in turn.requests:
            self._add(request.jobs, turn.now, None if here is None else here.id)
        for firing in turn.firings:
            self._add(firing.jobs, turn.now, None)

    def _add(self, jobs: Sequence[NewJob], at: int, by: str | None) -> None:
        """Note those that are in the store now: no refused one, none for which another one stands."""
        for new in jobs:
            if new.id not in self.dispatched and self._store.get(new.id) is not None:
                number = len(self.dispatched) + 1
                self.dispatched[new.id] = dispatched_job(new, self._handle(new.id), number, at, by)

    def note_run(self, claim: Claim, outcome: Outcome) -> Run:
        """Note a run, once its outcome is committed or lost."""
        run = run_of(claim, outcome, self._store.get(claim.job), self.dispatched[claim.job])
        self.runs.append(run)
        return run

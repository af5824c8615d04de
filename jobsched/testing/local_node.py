"""A node without processes: real turns on a real store, jobs run one at a time where the test runs.

What makes a turn is the node's own: reception, waiter, scheduler, supervisors. What is left out is what
a test could not hold still: several jobs at once, killing by force, the balancer, retention.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import msgspec

from jobsched import wire
from jobsched.api import use_dispatcher
from jobsched.clock import MICROSECONDS
from jobsched.codec import decode_record
from jobsched.config import Config
from jobsched.context import current
from jobsched.death import crash_outcome
from jobsched.declarer import Declarer
from jobsched.definition import known
from jobsched.dispatcher import Dispatcher, Job
from jobsched.errors import Unavailable
from jobsched.job import State
from jobsched.preloader import Exited
from jobsched.reception import Reception
from jobsched.scheduler import Scheduler
from jobsched.store.base import (
    CategoryStats,
    Claim,
    GiveBack,
    JobStore,
    Outcome,
    Query,
    Refused,
    Reply,
    Request,
    Slot,
    Turn,
    TurnResult,
)
from jobsched.store.lmdb_space import adds
from jobsched.store.moves import Watch
from jobsched.store.reasons import refused_with
from jobsched.supervisor import Supervisor
from jobsched.testing.clock import StandingClock
from jobsched.testing.faults import Faults
from jobsched.testing.journal import Journal
from jobsched.testing.local_worker import LocalWorker
from jobsched.testing.record import Run
from jobsched.waiter import Waiter
from jobsched.worker_link import Held

__all__ = ["LocalNode", "NodeKilled"]

_TRIES = 50  # of a request whose node is killed under it
_STEPS = 10_000  # turns that may be due at the same moment
_AGAIN_US = 250_000
_STEP_S = 3600.0
_LOST = "the request or its answer got lost (a fault on purpose)"
_FULL = Refused("StoreFull", "there is no room for new jobs (a fault on purpose)")


class NodeKilled(BaseException):
    """The node was killed, and the worker with it: raised in the job that ran, and caught nowhere."""


class LocalNode:
    """The node of one app. Requests may come from any thread;
    jobs are run by the thread that asks for it.

    Jobs dispatch through the dispatcher, by the functions of the package as well.
    """

    def __init__(
        self,
        config: Config,
        store: JobStore,
        clock: StandingClock,
        rng: random.Random,
        dispatcher: Dispatcher,
    ) -> None:
        self.config = config
        self._clock = clock
        self._rng = rng
        self._lock = threading.RLock()  # around a turn: an async job dispatches from threads
        self._workers: list[LocalWorker] = []
        self._busy: list[LocalWorker] = []  # each but the last waits for the job of the next
        self.store = store
        self.faults = Faults(0)
        self._dispatcher = dispatcher
        self.journal = Journal(store, partial(Job, dispatcher))
        self._lives = 0
        self.start()

    # Life.

    def start(self) -> None:
        """Begin a node's life: what an earlier one left in progress is put back."""
        self._lives += 1
        self._busy.clear()
        self.store.recover(self._clock.now())
        self._supervisors = {
            name: Supervisor(name, settings) for name, settings in self.config.categories.items()
        }
        self._reception = Reception(self.config)
        self._scheduler = Scheduler()
        self._scheduler.open(self.store)
        self._waiter = Waiter()
        self._steps = -1  # of the clock, that the scheduler knows of
        Declarer(self.config, self.store, self._reception, self._clock).ask()
        turn = Turn(now=self._clock.now(), requests=self._reception.requests(), watch=Watch.ALL)
        result = self._learn(turn)
        self._reception.answer(result.replies)

    def close(self) -> None:
        """Let go of workers and store."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        self.store.close()

    # Requests.

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied, each whole or not at all; in a node that is killed, again in the next."""
        for _ in range(_TRIES):
            try:
                return self._exchange(requests)
            except NodeKilled:
                if current.get(None) is not None:
                    raise
        raise Unavailable(f"the node was killed {_TRIES} times under the same request")

    def _exchange(self, requests: Sequence[Request]) -> list[Reply]:
        what = f"a request of {sum(len(request.jobs) for request in requests)} jobs"
        refused = [adds(request) and self.faults.strikes("store_full", what) for request in requests]
        is_lost = self.faults.strikes("answer_lost", what)
        if is_lost and self.faults.draw("answer_lost", 0, 1) < 0.5:  # noqa: PLR2004 (either way)
            raise Unavailable(_LOST)
        with self._lock:
            taken = [request for request, is_full in zip(requests, refused, strict=True) if not is_full]
            answers = iter(self._answered(taken) if taken else [])
        if is_lost:
            raise Unavailable(_LOST)
        self._end_cancelled({job for request in requests for job in request.cancel})
        return [_FULL if is_full else next(answers) for is_full in refused]

    def _answered(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests pass the node's reception, and a turn."""
        inbox = _Inbox()
        self._reception.tasks = known()
        for number, request in enumerate(requests):
            self._reception.take(inbox, wire.Ask(number, request))
        self._reception.answer(self._turn(requests=self._reception.requests()).replies)
        return [cast("wire.Answer", inbox.messages[number]).reply for number in range(len(requests))]

    def _end_cancelled(self, jobs: set[bytes]) -> None:
        """Ask for the end of running jobs whose cancellation is on record."""
        for worker in reversed(self._busy):
            if worker.claim is not None and worker.claim.job in jobs:
                worker.interrupts.cancel(here=worker is self._busy[-1])

    # Turns.

    def _turn(
        self,
        *,
        requests: Sequence[Request] = (),
        outcomes: Sequence[Outcome] = (),
        give_back: Sequence[GiveBack] = (),
        slots: Sequence[Slot] = (),
    ) -> TurnResult:
        """Have a turn applied. Raises NodeKilled, and the next node has started then."""
        with self._lock:
            if self.faults.strikes("clock_step", "the wall clock"):
                step_us = int(self.faults.draw("clock_step", -_STEP_S, _STEP_S) * MICROSECONDS)
                self._clock.step_to(max(1, self._clock.now() + step_us))
            at, self._steps = self._clock.now(), self._clock.steps
            turn = Turn(
                now=at,
                requests=requests,
                outcomes=outcomes,
                give_back=give_back,
                release=self._waiter.release(at),
                slots=slots,
                firings=self._scheduler.firings(self.store, self._clock.monotonic(), at),
                watch=Watch.ALL,
            )
            self._kill_node("node_before_commit", turn)
            result = self._learn(turn)
            self._kill_node("node_after_commit", turn)
            return result

    def _kill_node(self, kind: str, turn: Turn) -> None:
        what = (
            f"a turn of {len(turn.requests)} requests, {len(turn.outcomes)} outcomes, {len(turn.slots)} slots"
        )
        if kind == "node_before_commit" and not self.faults.strikes("node_before_commit", what):
            return
        if kind == "node_after_commit" and not self.faults.strikes("node_after_commit", what):
            return
        self.start()
        raise NodeKilled(kind)

    def _learn(self, turn: Turn) -> TurnResult:
        """Apply a turn, and learn from it what is due next."""
        result = self.store.apply(turn)
        self._stats: Mapping[str, CategoryStats] = result.stats
        self._next = [at for at in (result.next_due, result.next_fire) if at is not None]
        self._waiter.learn(result.next_due)
        self._scheduler.learn(turn, result, self._clock.monotonic())
        self.journal.note(turn, result)
        return result

    # Running.

    def pass_us(self, micros: int) -> None:
        """Let time pass, for the job that runs here if one does. Raises what ends that then."""
        if self._busy and current.get(None) is not None:
            self._busy[-1].interrupts.pass_us(micros)
        else:
            self._clock.pass_us(micros)

    def check(self) -> None:
        """Raise what ends the job that runs here now, if anything does."""
        if self._busy and current.get(None) is not None:
            self._busy[-1].interrupts.check()

    @property
    def now(self) -> int:
        """The time, in UTC microseconds."""
        return self._clock.now()

    def run_next(self) -> Run | None:
        """Run the next job that is due; None if there is none. Raises Unavailable if the node is killed
        again and again.
        """
        before = len(self.journal.runs)
        for _ in range(_TRIES):
            try:
                self._settle()
                claim, category = self._claimed()
                return None if claim is None else self._run(claim, category)
            except NodeKilled:
                if current.get(None) is not None:
                    raise
                if len(self.journal.runs) > before:
                    return self.journal.runs[-1]
        raise Unavailable(f"the node was killed {_TRIES} times in a row")

    def _settle(self) -> None:
        """Fire what is due, and release due jobs to their queues."""
        for _ in range(_STEPS):
            at = self._clock.now()
            is_set = self._clock.steps != self._steps  # the scheduler has to see that it was set back
            if not (is_set or self._scheduler.is_due(at) or self._waiter.release(at)):
                return
            before = self._next
            result = self._turn()
            if not (result.fired or result.released or is_set) and self._next == before:
                return

    def _claimed(self) -> tuple[Claim | None, str]:
        """Claim the job that comes next: the one that came first to its queue, among those that are
        next in their category.
        """
        blocked: set[str] = set()
        while (category := self._next_category(blocked)) is not None:
            slot = Slot(category, len(self._busy) + 1, 1)
            claims = self._turn(slots=[slot]).claims
            if claims:
                self._supervisors[category].started(1, self._clock.monotonic())
                return claims[0], category
            blocked.add(category)  # what was there has expired, or is at a limit
        return None, ""

    def _next_category(self, blocked: set[str]) -> str | None:
        heads: list[tuple[int, str]] = []
        for name in self._startable():
            if name not in blocked and self._supervisors[name].starts_left(self._clock.monotonic()) != 0:
                page = self.store.find(Query(state=State.PENDING, category=name, limit=1))
                heads += [(job.status.sequence, name) for job in page.jobs]
        return min(heads)[1] if heads else None

    def _startable(self) -> list[str]:
        """Return the categories with jobs that could start, but for their rates."""
        if len(self._busy) >= self.config.workers:
            return []
        return [
            name
            for name, settings in self.config.categories.items()
            if name in self._stats
            and self._stats[name].ready > 0
            and (settings.max_workers is None or self.running(name) < settings.max_workers)
        ]

    def running(self, category: str | None = None) -> int:
        """Return how many jobs run, of a category or all; each but the last waits for the next."""
        return sum(category in (None, worker.category) for worker in self._busy)

    @property
    def has_ready(self) -> bool:
        """Whether `run_next` would run a job now."""
        return self._next_category(set()) is not None

    @property
    def stats(self) -> Mapping[str, CategoryStats]:
        """The counts of jobs by category."""
        return self._stats

    def next_at(self) -> int | None:
        """Return when something is due next, None if nothing is."""
        at, now = self._clock.now(), self._clock.monotonic()
        found = [moment if moment > at else at + _AGAIN_US for moment in self._next]
        waits = (self._supervisors[name].wait_s(now) for name in self._startable())
        found += [at + int(wait_s * MICROSECONDS) + 1 for wait_s in waits if wait_s]
        return min(found, default=None)

    def _run(self, claim: Claim, category: str) -> Run:
        life, depth = self._lives, len(self._busy)
        worker = self._worker(depth)
        started = self._clock.now()
        what = f"{decode_record(claim.record).task} attempt {claim.attempt}"
        if self.faults.strikes("worker_before_run", what):
            outcome = self._crash(worker, claim, started)
        else:
            worker.claim, worker.category = claim, category
            self._busy.append(worker)
            before = use_dispatcher(self._dispatcher)
            try:
                outcome = worker.run(claim)
            finally:
                use_dispatcher(before)
                worker.claim = None
                del self._busy[depth:]
            if life != self._lives:
                self.journal.note_run(claim, outcome)
                raise NodeKilled
            self._let_escape(worker, claim)
            if self.faults.strikes("worker_after_run", what):
                outcome = self._crash(worker, claim, started)
            outcome = self._vetted(outcome)
        try:
            self._turn(outcomes=[outcome])
        except NodeKilled:
            self.journal.note_run(claim, outcome)
            raise
        return self.journal.note_run(claim, outcome)

    def _vetted(self, outcome: Outcome) -> Outcome:
        """Return an outcome whose job has dispatched more with it, or that of its refusal."""
        if outcome.carried is not None and self.faults.strikes("store_full", "what an outcome carries"):
            return refused_with(outcome, _FULL.reason)
        self._reception.tasks = known()
        return self._reception.vetted(outcome)

    def _worker(self, depth: int) -> LocalWorker:
        if depth == len(self._workers):
            made = LocalWorker(depth + 1, self.config.categories, self._clock, self._rng)
            self._workers.append(made)
        return self._workers[depth]

    def _crash(self, worker: LocalWorker, claim: Claim, started: int) -> Outcome:
        """Return the outcome of a run whose worker is killed, as a node makes it."""
        exited = Exited(worker.number, int(signal.SIGKILL), 0)
        held = Held(claim.job, claim.number)
        return crash_outcome(held, worker, exited, started, self._clock.now())

    def _let_escape(self, worker: LocalWorker, claim: Claim) -> None:
        """Let go through what ends the test, not the job: it goes back to its place."""
        escaped, worker.interrupts.escaped = worker.interrupts.escaped, None
        if escaped is not None:
            self._turn(give_back=[GiveBack(claim.job, claim.number)])
            raise escaped


class _Inbox:
    """Whoever asked, and the answers by their numbers."""

    def __init__(self) -> None:
        self.messages: dict[int, msgspec.Struct] = {}

    def send(self, message: msgspec.Struct) -> None:
        self.messages[cast("wire.Answer", message).number] = message

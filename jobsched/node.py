"""The node: one loop, one turn, one commit.

A turn gathers what has arrived (requests of clients, outcomes of workers, exits, due times,
signals), applies it to the store as one transaction, and then answers the clients and hands the
claimed jobs out. What arrives during a commit is the next turn's batch, so commits are shared
without a timer and without added delay. The node runs no user code and never unpickles anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from jobsched.audience import Audience
from jobsched.balancer import Balancer
from jobsched.clock import MICROSECONDS, Clock, SystemClock
from jobsched.config import Config
from jobsched.crew import Crew
from jobsched.declarer import Declarer
from jobsched.drain import Drain, is_settled
from jobsched.errors import NotCommitted
from jobsched.event import Event, NodeDraining, NodeHeld, NodeReleased, NodeStarted
from jobsched.head_start import HeadStart
from jobsched.job import State, is_final
from jobsched.job_id import format_id
from jobsched.journals import Journals
from jobsched.keeper import Keeper
from jobsched.listener import Clients
from jobsched.loop import Loop
from jobsched.ownership import Ownership, StoppedEarly, own
from jobsched.patience import Patience
from jobsched.pool import Pool, waiting
from jobsched.pressure import Pressure
from jobsched.reception import Reception
from jobsched.report import Decision, NodeReport
from jobsched.scheduler import Scheduler
from jobsched.stop_signals import stopping_on_signals
from jobsched.store.base import CategoryStats, Refused, Turn, TurnResult
from jobsched.store.turnlog import RecordingStore, TurnLog
from jobsched.supervisor import Supervisor
from jobsched.waiter import Waiter
from jobsched.warden import Warden

__all__ = ["Node"]

log = logging.getLogger(__name__)
_REPORT_S = 0.25
_STUCK_CHECK_S = 0.01
_COMMIT_WEIGHT = 0.1
_LOOK_AHEAD_ROWS = 1000

JOBS_PUT_BACK = 3
"""Exit code of a stop that has cut jobs off."""


class Node:
    """One running `jobsched run`. Its fields belong to the thread that calls `run`, but for `stop`.

    `until_idle` ends it when nothing is left to do; a stop waits `grace_s` for running jobs, else as long
    as the configuration says; `report` is called from the loop, four times a second at most and at the
    end; `hook` likewise with every event; every turn is written to `turn_log`.
    """

    def __init__(
        self,
        config: Config,
        *,
        until_idle: bool = False,
        grace_s: float | None = None,
        report: Callable[[NodeReport], None] | None = None,
        hook: Callable[[Event], object] | None = None,
        turn_log: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._until_idle = until_idle
        self._grace_s = config.grace_s if grace_s is None else grace_s
        self._report = report
        self._turn_log = turn_log
        self._clock = clock or SystemClock()
        self._loop = Loop()
        self._stops = 0  # how often it was asked to stop; any thread or signal handler adds
        self._supervisors = {name: Supervisor(name, settings) for name, settings in config.categories.items()}
        self._balancer = Balancer(config, self._supervisors)
        self._waiter = Waiter()
        self._scheduler = Scheduler()
        self._warden = Warden(config.categories)
        self._keeper = Keeper(config.retention)
        self._pressure = Pressure(config.pressure)
        self._reception = Reception(config)
        self._journals = Journals(config, self._reception)
        self._audience = Audience(config, self._loop, self._clock, hook)
        self._stats: dict[str, CategoryStats] = {}
        self._decisions: list[Decision] = []
        self._commit_s = 0.001  # a moving average
        self._is_eager = True  # the last turn may have left jobs that can start at once
        self._patience = Patience()
        self._drain: Drain | None = None
        self._ended = 0
        self._failed_before = 0
        self._reported_at = 0.0
        self._started_at = self._clock.monotonic()

    # Life.

    def run(self) -> int:
        """Serve until stopped, or until idle. Returns 0; 1 if jobs failed for good until idle; 3 if a
        stop has put back jobs that were running.

        SIGTERM and SIGINT drain; a second one does not wait for running jobs. Raises NodeRunning,
        StoreError and its kin, and TasksNotLoaded when the user's modules cannot be imported.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(StoppedEarly))
            stack.callback(self._loop.close)
            stack.enter_context(stopping_on_signals(self.stop))
            stack.callback(self._audience.close, lambda: self._stops > 1)
            owned = stack.enter_context(own(self._config, self._clock.now(), lambda: bool(self._stops)))
            self._open(owned)
            stack.callback(self._journals.close)
            stack.callback(self._clients.close)
            self._crew = Crew(
                self._config,
                supervisors=self._supervisors,
                loop=self._loop,
                reception=self._reception,
                clock=self._clock,
                next_worker=owned.next_worker,
                tell=self._audience.note,
            )
            stack.callback(self._crew.close)
            self._head_start = HeadStart(self._crew, self._supervisors, self._store.get)
            self._reception.report = self._view
            log.info("node started on %s, %d workers", self._config.store.path, self._config.workers)
            self._audience.note(NodeStarted, pid=os.getpid(), workers=self._config.workers)
            while not self._is_over():
                self._turn()
            self._journals.take_in_rest(self._store, self._clock.now())
            self._show(final=True)
            self._audience.end(self._drain.put_back if self._drain else 0)
        log.info("node stopped")
        if self._drain is not None and self._drain.put_back:
            return JOBS_PUT_BACK
        return 1 if self._until_idle and self._failed() else 0

    def stop(self) -> None:
        """Ask for a drain, from any thread; the second time, for a quick one."""
        self._stops += 1
        self._loop.wake()

    def _open(self, owned: Ownership) -> None:
        self._store = owned.store
        if self._turn_log is not None:
            self._store = RecordingStore(owned.store, TurnLog(self._turn_log))
        self._stats = self._store.stats()
        self._scheduler.open(self._store)
        self._audience.open(self._store)
        self._failed_before = self._failed()
        Declarer(self._config, self._store, self._reception, self._clock).ask()  # before any client
        if self._config.store.kind == "lmdb":
            self._journals.open(self._store)
        self._clients = Clients(owned.listener, self._loop, self._reception, self._audience, self._journals)
        for name in self._stats.keys() - self._config.categories.keys():
            if sum(self._stats[name].counts[: State.IN_PROGRESS]):
                log.warning("category %r has jobs and is not configured: they wait", name)

    def _failed(self) -> int:
        """Return how many jobs have failed for good since the start."""
        lost = sum(stats[State.FAILED] + stats[State.QUARANTINED] for stats in self._stats.values())
        return lost - self._failed_before

    def _is_over(self) -> bool:
        return self._drain is not None and self._drain.is_over

    @property
    def _pool(self) -> Pool:
        return self._crew.pool

    # The turn.

    def _turn(self) -> None:
        timeout_s = self._timeout()
        self._loop.wait(timeout_s if self._journals.is_quiet() else 0.0)
        now, at = self._clock.monotonic(), self._clock.now()
        self._crew.look()
        self._journals.gather(now)  # when all else is heard: nobody has dispatched after what is missed here
        if self._may_start and not (self._reception.is_asked or self._waiter.release(at)):
            self._head_start.begin(self._journals.sure(now), self._stats, now)
        turn = self._compose(now, at)
        result = None if turn is None else self._apply(turn, now)
        ended: list[bytes] = []
        if turn is not None and result is not None:
            self._commit_s += _COMMIT_WEIGHT * (self._clock.monotonic() - now - self._commit_s)
            ended = self._deliver(turn, result)
        if ended or self._reception.has_looks:
            self._reception.settle(self._store, ended, is_behind=now < self._patience.again_at)
        self._is_eager = result is not None and any(self._waiting().values())
        self._tend(self._clock.monotonic(), self._clock.now())  # what is due can wait for what has come
        if self._until_idle and not self._stops and self._is_idle():
            self.stop()
        self._audience.step(self._clock.monotonic())
        if self._report is not None:
            self._show()

    def _apply(self, turn: Turn, now: float) -> TurnResult | None:
        """Apply a turn. When the store fails its news is kept for later and its requests are refused."""
        try:
            result = self._store.apply(turn)
        except NotCommitted as error:
            self._patience.failed(error, now)
            self._head_start.undo()
            self._crew.take_back(turn.outcomes, turn.give_back)
            self._decisions[:0] = turn.decisions
            self._keeper.look_again()
            self._reception.refuse(Refused(type(error).__name__, str(error)))
            return None
        self._patience.worked(now)
        return result

    def _timeout(self) -> float:
        """Return how long the loop may sleep when nothing arrives."""
        now = self._clock.monotonic()
        if now < self._patience.again_at:
            return self._patience.again_at - now
        if self._is_eager or self._crew.has_news or self._decisions or self._reception.has_looks:
            return 0.0
        waits = [self._waiter.timeout_s(self._clock.now()), self._warden.timeout_s(self._pool, now)]
        waits += [self._pressure.timeout_s(now), self._pool.wait_s(self._waiting(), now)]
        waits += [self._audience.timeout_s(now), self._journals.timeout_s(now)]
        if self._report is not None:
            waits.append(_REPORT_S)
        if self._pool.holds_ahead:
            waits.append(_STUCK_CHECK_S)
        if self._drain is not None:  # nobody else does anything any more
            return min(*waits, self._drain.timeout_s(now))
        waits.append(self._balancer.timeout_s(now))
        waits.append(self._scheduler.timeout_s(now, self._clock.now()))
        waits.append(self._keeper.timeout_s(now, starts=not self._pressure.is_held))
        restart_in = self._pool.restart_in(now)
        if restart_in is not None:
            waits.append(max(0.001, restart_in))
        return min(waits)

    def _tend(self, now: float, at: int) -> None:
        """Let the parts of the node do what is due."""
        self._crew.give_back += self._pool.revoke_stuck(now, self._commit_s)
        self._warden.step(self._pool, now)
        if self._crew.has_loaded:
            self._crew.has_loaded = False
            self._keeper.look_at_parked()
        was_held = self._pressure.is_held
        if self._pressure.step(now) != was_held:
            log.warning("%s", self._pressure.reason or "the machine is calm again: jobs start")
            held = {"cause": self._pressure.reason} if self._pressure.is_held else {}
            self._audience.note(NodeHeld if held else NodeReleased, **held)
        if self._stops and self._drain is None:
            self._drain = Drain(self._crew, self._grace_s, now)
            self._journals.shut()
            self._audience.note(NodeDraining, grace_s=self._grace_s)
        if self._drain is not None:
            self._drain.step(now, at_once=self._stops > 1)
            return
        if self._balancer.is_due(now, self._stats):
            every = int(self._config.balancer.every_s * MICROSECONDS)
            upcoming = self._store.upcoming(at + every, _LOOK_AHEAD_ROWS)
            decision = self._balancer.step(now, at, self._stats, upcoming)
            if decision is not None:
                log.info("balanced %s", " ".join(f"{name}={count}" for name, count in decision.after.items()))
                self._decisions.append(decision)
        self._crew.give_back += self._pool.reconcile(now)

    def _compose(self, now: float, at: int) -> Turn | None:
        """Return what is to be applied; None if there is nothing."""
        if now < self._patience.again_at:
            return None
        free = self._waiting()
        begun = self._head_start.begun
        arriving = self._reception.arriving() + self._journals.arriving()
        arriving.subtract(slot.category for slot in self._head_start.slots)
        for name, count in arriving.items():
            if name not in self._stats or not self._stats[name].paused:
                free[name] = free.get(name, 0) + count
        starts = self._may_start
        if starts and not begun:  # a claim that is not noted yet could not be given back
            self._crew.give_back += self._pool.recall(free, now)
        slots = self._pool.slots(free, now, self._commit_s) if starts else []
        requests = self._reception.requests()
        unparked = self._keeper.release(self._store, self._reception.tasks, requests) if starts else None
        if unparked is not None:
            requests.append(unparked)
        release = self._waiter.release(at)
        prune = self._keeper.prune(now, at) if not self._stops else []
        firings = self._scheduler.firings(self._store, now, at) if not self._stops else []
        is_wanted = any(free.get(slot.category) for slot in slots)
        is_due = begun or requests or release or is_wanted or prune or firings or self._crew.has_news
        is_due = is_due or self._journals.is_due(now, is_asked=self._reception.has_looks)
        if not (is_due or self._decisions):
            return None
        outcomes, give_back = self._crew.take_news()
        is_behind = bool(requests) or any(outcome.carried for outcome in outcomes)
        from_journals = self._journals.request(now, is_behind=is_behind)
        if from_journals is not None:
            requests.append(from_journals)
        decisions, self._decisions = self._decisions, []
        return Turn(
            now=at,
            requests=requests,
            outcomes=outcomes,
            give_back=give_back,
            decisions=decisions,
            release=release,
            slots=[*self._head_start.slots, *slots],
            begun=begun,
            prune=prune,
            firings=firings,
            forget_journals=self._journals.forgotten(),
            forget_ended=self._keeper.ended_before(at) if prune else 0,
            watch=self._audience.watch,
        )

    @property
    def _may_start(self) -> bool:
        return not (self._stops or self._pressure.is_held or self._head_start.is_undoing)

    def _waiting(self) -> dict[str, int]:
        """Return how many jobs could start in each category."""
        return waiting(self._stats, self._supervisors)

    def _deliver(self, turn: Turn, result: TurnResult) -> list[bytes]:
        """After the commit: answer the clients, hand out the claims; return the jobs that ended."""
        self._head_start.hand_out(turn, result, self._clock.monotonic())  # before the clients are answered
        self._stats = result.stats
        self._waiter.learn(result.next_due)
        self._scheduler.learn(turn, result, self._clock.monotonic())
        self._keeper.learn(result.pruned, self._clock.monotonic(), is_full=result.is_full)
        self._pool.learn(result.blocked, turn.slots)
        paused = {name for request in turn.requests for name in request.pause}
        self._crew.give_back += self._pool.revoke_from(paused)
        self._reception.answer(result.replies)
        self._journals.learn(turn, result, self._store, self._clock.monotonic())
        self._audience.see(turn, result)
        self._end_cancelled(turn)
        self._note_outcomes(turn, result)
        # All that may have ended: a crash may quarantine a job, an interruption may park it, and
        # a retry is none for a job that was cancelled or is to run at most once.
        ended = [outcome.job for outcome in turn.outcomes]
        ended += [claim.job for claim in turn.give_back if claim.interrupted]
        return [*ended, *self._reception.cancelled()]

    def _end_cancelled(self, turn: Turn) -> None:
        """See to the end of running jobs whose cancellation is on disk now."""
        jobs = {job for request in turn.requests for job in request.cancel}
        for worker in self._pool.holders(jobs) if jobs else ():
            self._crew.give_back += worker.revoke()
            running = worker.held[-1] if worker.held else None  # the others have ended, untold
            if running is not None and running.job in jobs:
                self._warden.cancel(self._pool, worker, running.claim, self._clock.monotonic())

    def _note_outcomes(self, turn: Turn, result: TurnResult) -> None:
        if self._drain is not None:
            self._drain.note(turn, self._store)
        if result.lost:
            log.warning("%d outcomes came too late: their jobs had been claimed again", len(result.lost))
        for outcome in turn.outcomes:
            self._ended += is_final(outcome.state)
            if outcome.error is not None:
                log.warning("job=%s %s: %s", format_id(outcome.job), outcome.state, outcome.error.cause)

    def _is_idle(self) -> bool:
        """Whether all is done; not before the modules are imported: a broken one must be noticed."""
        if not self._pool.preloader.is_loaded or self._crew.has_news or self._keeper.is_looking:
            return False
        if self._scheduler.is_due(self._clock.now()) or not self._journals.is_empty:
            return False
        return is_settled(self._stats, self._config.categories)

    # What it shows.

    def _show(self, *, final: bool = False) -> None:
        now = self._clock.monotonic()
        if self._report is None or (now - self._reported_at < _REPORT_S and not final):
            return
        self._reported_at = now
        self._report(self._view())

    def _view(self) -> NodeReport:
        return NodeReport(
            at=self._clock.now(),
            uptime_s=self._clock.monotonic() - self._started_at,
            ended=self._ended,
            failed=self._failed(),
            moves=self._balancer.moves,
            draining=self._drain is not None,
            held=self._pressure.reason,
            categories=self._pool.view(self._stats),
            decision=self._balancer.last,
        )

"""The node: one loop, one turn, one commit.

A turn gathers what has arrived (requests of clients, outcomes of workers, exits, due times,
signals), applies it to the store as one transaction, and then answers the clients and hands the
claimed jobs out. What arrives during a commit is the next turn's batch, so commits are shared
without a timer and without added delay. The node runs no user code and never unpickles anything.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from jobsched.balancer import Balancer
from jobsched.clock import MICROSECONDS, Clock, SystemClock
from jobsched.config import Config
from jobsched.crew import Crew
from jobsched.job import State, format_id
from jobsched.listener import Clients
from jobsched.loop import Loop
from jobsched.ownership import Ownership, StoppedEarly, own
from jobsched.pool import Pool, waiting
from jobsched.reception import Reception
from jobsched.report import Decision, NodeReport
from jobsched.store.base import CategoryStats, Turn, TurnResult
from jobsched.store.turnlog import RecordingStore, TurnLog
from jobsched.supervisor import Supervisor
from jobsched.transport import is_final
from jobsched.waiter import Waiter

__all__ = ["Node"]

log = logging.getLogger(__name__)

_REPORT_S = 0.25
_STUCK_CHECK_S = 0.01
_COMMIT_WEIGHT = 0.1
_LOOK_AHEAD_ROWS = 1000
_KILL_PATIENCE_S = 5.0


class Node:
    """One running `jobsched run`. Its fields belong to the thread that calls `run`, but for `stop`.

    `until_idle` ends it when nothing is left to do; `grace_s` is how long a stop waits for running
    jobs, the configuration's by default; `report` is called from the loop, four times a second at
    most and once at the end; `turn_log` is a file to which every turn is written, for replay.
    """

    def __init__(
        self,
        config: Config,
        *,
        until_idle: bool = False,
        grace_s: float | None = None,
        report: Callable[[NodeReport], None] | None = None,
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
        self._reception = Reception(config)
        self._stats: dict[str, CategoryStats] = {}
        self._decisions: list[Decision] = []
        self._commit_s = 0.001  # a moving average
        self._is_eager = True  # the last turn may have left something to do at once
        self._drain_until: float | None = None
        self._ended = 0
        self._failed_before = 0
        self._reported_at = 0.0
        self._started_at = self._clock.monotonic()

    # Life.

    def run(self) -> int:
        """Serve until stopped, or until idle. Returns 0, or 1 if jobs failed for good.

        SIGTERM and SIGINT drain; a second one does not wait for running jobs. Raises NodeRunning,
        StoreError and its kin, and TasksNotLoaded when the user's modules cannot be imported.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(StoppedEarly))
            stack.callback(self._loop.close)
            stack.enter_context(self._signals())
            owned = stack.enter_context(own(self._config, self._clock.now(), lambda: bool(self._stops)))
            self._open(owned)
            stack.callback(self._clients.close)
            self._crew = Crew(
                self._config,
                supervisors=self._supervisors,
                loop=self._loop,
                reception=self._reception,
                clock=self._clock,
                next_worker=owned.next_worker,
            )
            stack.callback(self._crew.close)
            log.info("node started on %s, %d workers", self._config.store.path, self._config.workers)
            while not self._is_over():
                self._turn()
            self._show(final=True)
        log.info("node stopped")
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
        self._failed_before = self._failed()
        self._clients = Clients(owned.listener, self._loop, self._reception)
        for name in self._stats.keys() - self._config.categories.keys():
            if sum(self._stats[name].counts[: State.IN_PROGRESS]):
                log.warning("category %r has jobs and is not configured: they wait", name)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have SIGTERM, SIGINT and a closed terminal ask for a stop. Only a main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        for number in before:
            signal.signal(number, lambda *_: self.stop())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _failed(self) -> int:
        """Return how many jobs have failed for good since the start."""
        lost = sum(stats[State.FAILED] + stats[State.QUARANTINED] for stats in self._stats.values())
        return lost - self._failed_before

    def _is_over(self) -> bool:
        return self._drain_until is not None and not self._pool.workers and not self._crew.has_news

    @property
    def _pool(self) -> Pool:
        return self._crew.pool

    # The turn.

    def _turn(self) -> None:
        self._loop.wait(self._timeout())
        now, at = self._clock.monotonic(), self._clock.now()
        self._tend(now, at)
        turn = self._compose(now, at)
        ended: list[bytes] = []
        if turn is not None:
            result = self._store.apply(turn)
            self._commit_s += _COMMIT_WEIGHT * (self._clock.monotonic() - now - self._commit_s)
            ended = self._deliver(turn, result)
        self._is_eager = turn is not None
        if self._until_idle and not self._stops and self._is_idle():
            self.stop()
        if ended or self._reception.has_looks:
            self._reception.settle(self._store, ended)
        if self._report is not None:
            self._show()

    def _timeout(self) -> float:
        """Return how long the loop may sleep when nothing arrives."""
        if self._is_eager or self._crew.has_news:
            return 0.0
        now = self._clock.monotonic()
        waits = [self._waiter.timeout_s(self._clock.now()), self._balancer.timeout_s(now)]
        if self._report is not None:
            waits.append(_REPORT_S)
        if self._pool.holds_ahead:
            waits.append(_STUCK_CHECK_S)
        if self._drain_until is not None:
            waits.append(max(0.0, self._drain_until - now))
        restart_in = self._pool.restart_in(now) if self._drain_until is None else None
        if restart_in is not None:
            waits.append(max(0.001, restart_in))
        return min(waits)

    def _tend(self, now: float, at: int) -> None:
        """Let the parts of the node do what is due."""
        self._crew.give_back += self._pool.revoke_stuck(now, self._commit_s)
        if self._stops and self._drain_until is None:
            self._drain(now)
        if self._drain_until is not None:
            self._hurry(now)
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
        free = waiting(self._stats, self._supervisors)
        for name, count in self._reception.arriving().items():
            if name not in self._stats or not self._stats[name].paused:
                free[name] = free.get(name, 0) + count
        slots = [] if self._drain_until is not None else self._pool.slots(free, now, self._commit_s)
        self._slots = slots
        requests = self._reception.requests()
        release = self._waiter.release(at)
        is_wanted = any(free.get(slot.category) for slot in slots)
        if not (requests or release or is_wanted or self._crew.has_news or self._decisions):
            return None
        outcomes, give_back = self._crew.take_news()
        decisions, self._decisions = self._decisions, []
        return Turn(
            now=at,
            requests=requests,
            outcomes=outcomes,
            give_back=give_back,
            decisions=decisions,
            release=release,
            slots=slots,
        )

    def _deliver(self, turn: Turn, result: TurnResult) -> list[bytes]:
        """After the commit: answer the clients, hand out the claims; return the jobs that ended."""
        self._stats = result.stats
        self._waiter.learn(result.next_due)
        if result.claims:  # first, so that workers start while the clients are answered
            self._crew.give_back += self._pool.hand_out(result.claims, self._slots, self._clock.monotonic())
        paused = {name for request in turn.requests for name in request.pause}
        self._crew.give_back += self._pool.revoke_from(paused)
        self._reception.answer(result.replies)
        self._note_outcomes(turn, result)
        # All that may have ended: a crash may quarantine a job, an interruption may park it.
        ended = [outcome.job for outcome in turn.outcomes if outcome.state is not State.SCHEDULED]
        ended += [claim.job for claim in turn.give_back if claim.interrupted]
        return [*ended, *self._reception.cancelled()]

    def _note_outcomes(self, turn: Turn, result: TurnResult) -> None:
        if result.lost:
            log.warning("%d outcomes came too late: their jobs had been claimed again", len(result.lost))
        for outcome in turn.outcomes:
            self._ended += is_final(outcome.state)
            if outcome.error is not None:
                log.warning("job=%s %s: %s", format_id(outcome.job), outcome.state, outcome.error.cause)

    def _is_idle(self) -> bool:
        """Whether nothing is pending, running or scheduled that this node could ever run.

        Not before the user's modules are imported: a broken one must not go unnoticed.
        """
        if not self._pool.preloader.is_loaded or self._crew.has_news:
            return False
        for name, stats in self._stats.items():
            if name in self._config.categories and not stats.paused:
                if stats[State.PENDING] or stats[State.IN_PROGRESS] or stats[State.SCHEDULED]:
                    return False
            elif stats[State.IN_PROGRESS]:
                return False
        return True

    # Stopping.

    def _drain(self, now: float) -> None:
        """Start no more jobs; let those that run end."""
        running = sum(bool(worker.held) for worker in self._pool.workers.values())
        if not self._until_idle:
            log.info("draining: %d jobs run, %g s of grace", running, self._grace_s)
        self._drain_until = now + self._grace_s
        self._crew.is_draining = True
        self._crew.give_back += self._pool.dismiss()

    def _hurry(self, now: float) -> None:
        """Kill what still runs when the grace is over, or a second stop was asked for."""
        assert self._drain_until is not None
        if self._stops > 1 and not self._crew.is_killing:
            self._drain_until = min(self._drain_until, now)
        if now < self._drain_until or not self._pool.workers:
            return
        if not self._crew.is_killing:
            self._crew.is_killing = True
            self._drain_until = now + _KILL_PATIENCE_S
            log.warning("killing %d workers: their jobs go back to their place", len(self._pool.workers))
            self._pool.kill()
        else:
            self._crew.replace()

    # What it shows.

    def _show(self, *, final: bool = False) -> None:
        now = self._clock.monotonic()
        if self._report is None or (now - self._reported_at < _REPORT_S and not final):
            return
        self._reported_at = now
        self._report(
            NodeReport(
                at=self._clock.now(),
                uptime_s=now - self._started_at,
                ended=self._ended,
                failed=self._failed(),
                moves=self._balancer.moves,
                draining=self._drain_until is not None,
                categories=self._pool.view(self._stats),
                decision=self._balancer.last,
            )
        )

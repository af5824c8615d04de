"""The warden: ends runs that have overstayed, were cancelled, or hold too much memory.

It looks at the workers' boards, so a job that is stuck in C code hides nothing from it. What it
decides is carried out by force; what becomes of the job then stands in the worker's `doom`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from jobsched.config import CategoryConfig
from jobsched.job import State
from jobsched.memory_limit import anonymous_bytes
from jobsched.pool import Pool
from jobsched.worker_link import Doom, WorkerLink

__all__ = ["Warden"]

log = logging.getLogger(__name__)

_EVERY_S = 0.1  # between two looks while jobs run
_MEMORY_EVERY_S = 0.25
_READY_S = 60.0
_HALF_FRAME_S = 10.0
_INSIST_S = 2.0
_KILL_S = 5.0
_ASK, _INSIST = 1, 2
_NANOSECONDS = 1_000_000_000


class _Cancellation:
    """A run that is to end: asked at once, told by an exception after 2 s, killed after `kill_s`."""

    def __init__(self, claim: int, now: float, kill_s: float) -> None:
        self.claim = claim
        self.insist_at = now + min(_INSIST_S, kill_s)
        self.kill_at = now + kill_s
        self.kill_s = kill_s
        self.is_told = False


class Warden:
    """Belongs to the node's loop."""

    def __init__(self, categories: Mapping[str, CategoryConfig]) -> None:
        self._categories = categories
        self._cancelled: dict[int, _Cancellation] = {}  # by worker
        self._watches_memory = any(settings.max_memory_bytes for settings in categories.values())
        self._next_at = 0.0
        self._memory_at = 0.0

    def timeout_s(self, pool: Pool, now: float) -> float:
        """Return the seconds until the next look."""
        if any(worker.held or not worker.is_ready for worker in pool.workers.values()):
            return max(0.0, self._next_at - now)
        return float("inf")

    def cancel(self, pool: Pool, worker: WorkerLink, claim: int, now: float) -> None:
        """Ask for the end of a run. To ask again puts nothing off."""
        earlier = self._cancelled.get(worker.number)
        if earlier is not None and earlier.claim == claim:
            return
        kill_s = self._settings(worker).kill_after_s
        self._cancelled[worker.number] = _Cancellation(claim, now, _KILL_S if kill_s is None else kill_s)
        self._next_at = 0.0
        worker.board.ask_cancel(claim, _ASK)
        pool.preloader.poke(worker.number)

    def step(self, pool: Pool, now: float) -> None:
        """Look at all workers that are due to be looked at."""
        if now < self._next_at:
            return
        self._next_at = now + _EVERY_S
        looks_at_memory = self._watches_memory and now >= self._memory_at
        if looks_at_memory:
            self._memory_at = now + _MEMORY_EVERY_S
        for worker in pool.workers.values():
            if worker.doom is None:
                doom = self._find_doom(pool, worker, now, memory=looks_at_memory)
                if doom is not None:
                    log.warning("killing worker %d: %s", worker.number & 0xFFFFFFFF, doom.cause)
                    worker.doom = doom
                    pool.preloader.kill(worker.number)
        self._forget(pool.workers.values())

    def _forget(self, workers: Iterable[WorkerLink]) -> None:
        """Drop the cancellations of runs that have ended."""
        held = {worker.number: [held.claim for held in worker.held] for worker in workers}
        for number, cancellation in list(self._cancelled.items()):
            if cancellation.claim not in held.get(number, ()):
                del self._cancelled[number]

    def _find_doom(self, pool: Pool, worker: WorkerLink, now: float, *, memory: bool) -> Doom | None:
        if not worker.is_ready:
            if now - worker.started_at > _READY_S:
                return Doom(0, State.PENDING, f"it was not ready after {_READY_S:g} s")
            return None
        if not worker.held:
            return None
        return (
            self._torn(worker, now)
            or self._late(worker)
            or self._unwilling(pool, worker, now)
            or (self._fat(worker) if memory else None)
        )

    def _torn(self, worker: WorkerLink, now: float) -> Doom | None:
        """Find a worker that has sent a part of a frame and then nothing: whatever else it sends is
        taken for the rest of it, so its job would run for ever.
        """
        if not worker.half_received or now - worker.heard_at < _HALF_FRAME_S:
            return None
        cause = f"its worker sent a part of a frame, and no more for {_HALF_FRAME_S:g} s"
        return Doom(worker.held[0].claim, State.PENDING, cause)

    def _late(self, worker: WorkerLink) -> Doom | None:
        """Find a run that its own time limit did not end."""
        posted, claim = worker.board.posted, worker.held[0].claim
        if posted.claim != claim or not posted.kill_at:
            return None
        if posted.kill_at > time.monotonic_ns():
            self._next_at = min(self._next_at, posted.kill_at / _NANOSECONDS)
            return None
        late_s = (posted.kill_at - posted.started_at - posted.limit_us * 1000) / _NANOSECONDS
        cause = f"timed out after {posted.limit_us / 1e6:g} s, and was killed {late_s:g} s later"
        if posted.retry_after_us < 0:
            return Doom(claim, State.FAILED, cause)
        return Doom(claim, State.SCHEDULED, cause, posted.retry_after_us)

    def _unwilling(self, pool: Pool, worker: WorkerLink, now: float) -> Doom | None:
        """Find a run that goes on though it was cancelled."""
        cancellation = self._cancelled.get(worker.number)
        if cancellation is None or worker.held[0].claim != cancellation.claim:
            return None
        if now >= cancellation.kill_at:
            cause = f"cancelled: killed, as it went on for {cancellation.kill_s:g} s"
            return Doom(cancellation.claim, State.CANCELLED, cause)
        if now >= cancellation.insist_at and not cancellation.is_told:
            cancellation.is_told = True
            worker.board.ask_cancel(cancellation.claim, _INSIST)
            pool.preloader.poke(worker.number)
        return None

    def _fat(self, worker: WorkerLink) -> Doom | None:
        """Find a run that holds more memory than its category allows."""
        limit = self._settings(worker).max_memory_bytes
        held = anonymous_bytes(worker.pid) if limit is not None and worker.pid else 0
        if limit is None or held <= limit:
            return None
        cause = f"out of memory: it held {held >> 20:,} MiB, max_memory is {limit >> 20:,} MiB"
        return Doom(worker.running, State.PENDING, cause, out_of_memory=True)

    def _settings(self, worker: WorkerLink) -> CategoryConfig:
        return self._categories[worker.serving or worker.home]

"""The scheduler: fires the schedules that are due, and sees to those that a clock set back strands."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from jobsched.clock import MICROSECONDS, from_micros
from jobsched.errors import JobschedError
from jobsched.firing import fire, put_off, set_back
from jobsched.job_id import format_id, new_id
from jobsched.schedule import FiringKind, FiringRecord, StoredSchedule
from jobsched.store.base import Firing, JobStore, Turn, TurnResult

__all__ = ["Scheduler"]

log = logging.getLogger(__name__)

_MOST = 500  # schedules that fire in one turn
_TURN_S = 0.1  # that may go into finding out what they fire: a Cron that was down for long is slow
_LONGEST_S = 1.0  # the wall clock is read again at least this often, in case it was set
_AGAIN_S = 0.25  # after a turn in which nothing could fire, for want of room
_SET_S = 0.5  # clocks that differ by this were set
_BROKEN_S = 60.0  # until a schedule that cannot be understood is looked at again


class Scheduler:
    """Belongs to the node's loop. `learn` tells it when the next schedule is due."""

    def __init__(self) -> None:
        self._next_fire: int | None = None
        self._again_at = 0.0  # monotonic
        self._review_after: str | None = ""  # which schedules are still to be looked at: None, none
        self._reviewed: str | None = None  # up to which they are, once what that asks for is on disk
        self._clocks: tuple[float, int] | None = None  # monotonic and wall, read together

    def open(self, store: JobStore) -> None:
        """Begin with what a store has."""
        self._next_fire = _next_fire(store)

    def learn(self, turn: Turn, result: TurnResult, now: float) -> None:
        """Take what a turn has done."""
        self._next_fire = result.next_fire
        if turn.firings and not result.fired:
            self._again_at = now + _AGAIN_S
        elif turn.firings and self._reviewed is not None:
            self._review_after, self._reviewed = self._reviewed, None
        for name, record in result.fired:
            _log(name, record)

    def timeout_s(self, now: float, at: int) -> float:
        """Return the seconds until there is something to fire, or to look at."""
        if self._review_after is not None:
            return max(0.0, self._again_at - now)
        if self._next_fire is None:
            return _LONGEST_S
        due_s = (self._next_fire - at) / MICROSECONDS
        return min(_LONGEST_S, max(0.0, due_s, self._again_at - now))

    def is_due(self, at: int) -> bool:
        """Say whether there is something to fire."""
        return self._review_after is not None or (self._next_fire is not None and self._next_fire <= at)

    def firings(self, store: JobStore, now: float, at: int) -> list[Firing]:
        """Return what the next turn is to fire. `now` is monotonic, `at` in UTC microseconds."""
        self._look_at_clocks(now, at)
        self._reviewed = None
        if now < self._again_at:
            return []
        if self._review_after is not None:
            return self._review(store, at)
        if self._next_fire is None or self._next_fire > at:
            return []
        due = store.due_schedules(at, _MOST)
        if not due:  # the first one is damaged: it must not keep the node awake
            self._next_fire = _next_fire(store)
        return list(_fired(due, at))

    def _review(self, store: JobStore, at: int) -> list[Firing]:
        """Look at the next schedules; again at the same ones, unless what they ask for gets on disk."""
        assert self._review_after is not None
        page = store.schedules(self._review_after)
        found = [firing for stored in page if (firing := _set_back(stored, at)) is not None]
        if found:
            self._reviewed = page[-1].schedule.name
        else:
            self._review_after = page[-1].schedule.name if page else None
        return found

    def _look_at_clocks(self, now: float, at: int) -> None:
        """Look at all schedules when the wall clock was set back."""
        if self._clocks is not None:
            drift_s = (at - self._clocks[1]) / MICROSECONDS - (now - self._clocks[0])
            if drift_s < -_SET_S:
                log.warning("the clock was set back by %.1f s", -drift_s)
                self._review_after = ""
            elif drift_s > _SET_S:
                log.warning("the clock was set forwards by %.1f s, or the machine slept", drift_s)
        self._clocks = now, at


def _next_fire(store: JobStore) -> int | None:
    first = store.due_schedules((1 << 63) - 1, 1)
    return first[0].state.fire_at if first else None


def _fired(due: Iterable[StoredSchedule], at: int) -> Iterable[Firing]:
    """Yield what schedules fire, as long as there is time for more."""
    started = time.perf_counter()
    for stored in due:
        try:
            yield fire(stored, at, new_id)
        except (JobschedError, OverflowError) as error:
            yield put_off(stored, at, at + int(_BROKEN_S * MICROSECONDS), str(error))
        if time.perf_counter() - started > _TURN_S:
            return


def _set_back(stored: StoredSchedule, at: int) -> Firing | None:
    try:
        return set_back(stored, at) if stored.state.is_active else None
    except (JobschedError, OverflowError):
        return None  # it is said when it fires


def _log(name: str, record: FiringRecord) -> None:
    due = from_micros(record.due_at).isoformat()
    if record.kind is FiringKind.FIRED:
        late_s = (record.at - record.due_at) / MICROSECONDS
        log.info("schedule=%s fired job=%s due %s, %.3f s ago", name, format_id(record.job), due, late_s)
    elif record.kind is FiringKind.SKIPPED:
        log.warning("schedule=%s skipped %d due times from %s: %s", name, record.count, due, record.why)
    else:
        log.warning("schedule=%s %s", name, record.why)

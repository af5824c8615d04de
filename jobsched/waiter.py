"""The waiter: knows when the next delayed job is due."""

from __future__ import annotations

from jobsched.clock import MICROSECONDS

__all__ = ["Waiter"]

_MOST = 5000  # jobs released in one turn: a big wave must not make one long transaction
_LONGEST_S = 1.0  # the wall clock is read again at least this often, in case it was set


class Waiter:
    """Keeps the earliest due time. Belongs to the node's loop."""

    def __init__(self) -> None:
        self._next_due: int | None = None

    def learn(self, next_due: int | None) -> None:
        """Take what a turn has found to be the earliest due time."""
        self._next_due = next_due

    def release(self, now: int) -> int:
        """Return how many due jobs the next turn is to release; 0 when none is due."""
        return _MOST if self._next_due is not None and self._next_due <= now else 0

    def timeout_s(self, now: int) -> float:
        """Return the seconds until there is something to release, or to look again."""
        if self._next_due is None:
            return _LONGEST_S
        return min(_LONGEST_S, max(0.0, (self._next_due - now) / MICROSECONDS))

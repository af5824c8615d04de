"""What retention deletes: an order that is data, as all of a turn is."""

from __future__ import annotations

import msgspec

from jobsched.job import State

__all__ = ["PRUNABLE", "Prune"]

PRUNABLE = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
"""The states in which retention deletes jobs. What is parked or quarantined waits for its operator."""


class Prune(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Delete ended jobs, the oldest first, `limit` at most: those of a state that ended before
    `before` (UTC microseconds), and those over the number to `keep` that ended before `settled`.
    """

    state: State
    before: int
    keep: int | None
    settled: int
    limit: int

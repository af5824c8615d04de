"""What a node shows of itself while it runs: values for live views, logs and checks."""

from __future__ import annotations

import msgspec

from jobsched.job import State

__all__ = ["CategoryReport", "Decision", "NodeReport"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of the balancer, with what it was based on.

    `at` is in UTC microseconds; `before` and `after` are workers per category, `ideal` the fair
    share before rounding and damping, `reasons` one line per category.
    """

    at: int
    budget: int
    backlog: dict[str, int]
    before: dict[str, int]
    after: dict[str, int]
    ideal: dict[str, float]
    reasons: dict[str, str]

    @property
    def moves(self) -> int:
        """How many workers it gave to another category."""
        return sum(max(0, count - self.before.get(name, 0)) for name, count in self.after.items())


class CategoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """A category now. `counts` are its jobs by State; `workers` are assigned to it by the balancer,
    `busy` are running its jobs, those that it has borrowed from idle categories included.
    """

    counts: list[int]
    paused: bool
    workers: int
    busy: int

    def count(self, state: State) -> int:
        """Return how many jobs are in a state."""
        return self.counts[state]


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node now. `ended` and `failed` count since its start; `decision` is the balancer's last;
    `held` says why no jobs start, empty when they do.
    """

    at: int
    uptime_s: float
    ended: int
    failed: int
    moves: int
    draining: bool
    categories: dict[str, CategoryReport]
    decision: Decision | None
    held: str = ""

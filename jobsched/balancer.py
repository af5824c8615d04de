"""The balancer: applies the allocation rule to the supervisors, every so often."""

from __future__ import annotations

from collections.abc import Mapping

from jobsched.allocation import Demand, allocate
from jobsched.config import Config
from jobsched.job import State
from jobsched.report import Decision
from jobsched.store.base import CategoryStats
from jobsched.supervisor import Supervisor

__all__ = ["Balancer"]


class Balancer:
    """Decides how many workers each category has. Belongs to the node's loop.

    It looks at the backlog every `every` seconds, and at once when a category gets work and has no
    worker.
    """

    def __init__(self, config: Config, supervisors: Mapping[str, Supervisor]) -> None:
        self._config = config
        self._supervisors = supervisors
        self._due_at = 0.0  # monotonic
        self._starved_since: dict[str, float] = {}
        self.last: Decision | None = None
        self.moves = 0

    def is_due(self, now: float, stats: Mapping[str, CategoryStats]) -> bool:
        """Say whether to decide now: the interval is over, or a category has just been left with
        work and no worker.
        """
        if now >= self._due_at:
            return True
        return any(
            supervisor.target == 0 and name not in self._starved_since and _backlog(stats.get(name))
            for name, supervisor in self._supervisors.items()
        )

    def timeout_s(self, now: float) -> float:
        """Return the seconds until the interval is over."""
        return max(0.0, self._due_at - now)

    def step(
        self, now: float, at: int, stats: Mapping[str, CategoryStats], upcoming: Mapping[str, int]
    ) -> Decision | None:
        """Set the supervisors' targets; return the decision if it changes any.

        `now` is monotonic seconds, `at` UTC microseconds; `upcoming` are jobs due within the
        interval.
        """
        balancer = self._config.balancer
        self._due_at = now + balancer.every_s
        backlog = {name: _backlog(stats.get(name), upcoming.get(name, 0)) for name in self._supervisors}
        before = {name: supervisor.target for name, supervisor in self._supervisors.items()}
        self._note_starved(now, backlog, before)
        demands = {name: self._demand(name, count, now) for name, count in backlog.items()}
        allocation = allocate(
            self._config.workers, demands, before, damping=balancer.damping, weigh_by=balancer.weigh_by
        )
        decision = Decision(
            at=at,
            budget=self._config.workers,
            backlog=backlog,
            before=before,
            after=allocation.workers,
            ideal=allocation.ideal,
            reasons=allocation.reasons,
        )
        self.last = decision
        if decision.after == before:
            return None
        if any(before.values()):
            self.moves += decision.moves
        for name, count in decision.after.items():
            self._supervisors[name].target = count
        return decision

    def _note_starved(self, now: float, backlog: Mapping[str, int], workers: Mapping[str, int]) -> None:
        for name, count in backlog.items():
            if count and not workers[name]:
                self._starved_since.setdefault(name, now)
            else:
                self._starved_since.pop(name, None)

    def _demand(self, name: str, backlog: int, now: float) -> Demand:
        supervisor = self._supervisors[name]
        settings = supervisor.settings
        return Demand(
            priority=settings.priority,
            backlog=backlog,
            min_workers=settings.min_workers,
            max_workers=settings.max_workers,
            mean_run_s=supervisor.mean_run_s,
            starved_s=now - self._starved_since.get(name, now),
        )


def _backlog(stats: CategoryStats | None, upcoming: int = 0) -> int:
    """Count what workers could do: nothing of a paused category can start."""
    if stats is None:
        return upcoming
    return stats[State.IN_PROGRESS] + (0 if stats.paused else stats[State.PENDING] + upcoming)

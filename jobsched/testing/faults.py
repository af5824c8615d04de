"""Faults on purpose: where they can strike, which of them do, by a seed or by a plan.

Each kind draws from randomness of its own and counts its own points, so that the same seed strikes the
same points again, and another kind more or less shifts none of them.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, Self, get_args

from jobsched.errors import InvalidOption, nearest

__all__ = ["KINDS", "FaultKind", "Faults", "Struck"]

FaultKind = Literal[
    "worker_before_run",
    "worker_after_run",
    "node_before_commit",
    "node_after_commit",
    "store_full",
    "answer_lost",
    "clock_step",
]
"""Where a fault can strike.

A worker is killed before user code began, or when it has ended and its outcome is not committed. The
node is killed before a turn is committed, or after it and before anybody was told. The store refuses
what is new with StoreFull. The answer to a request is lost: Unavailable, and it has happened or not.
The wall clock is set, up to an hour forwards or back.
"""

KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


class Struck(NamedTuple):
    """A fault that has struck: its kind, at which of its points (from 1), and what it hit."""

    kind: FaultKind
    point: int
    what: str


class Faults:
    """Which faults strike. `log` has those that did, `seed` repeats them.

    Use it as a context manager, or call `stop`, to have them end.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        plan: Mapping[FaultKind, Collection[int]] | None = None,
        **rates: float,
    ) -> None:
        self.seed = secrets.randbelow(1 << 32) if seed is None else seed
        self.log: list[Struck] = []
        self._plan = {_checked(kind): frozenset(points) for kind, points in (plan or {}).items()}
        self._rates = {_checked(kind): _checked_rate(kind, rate) for kind, rate in rates.items()}
        self._points: Counter[FaultKind] = Counter()
        self._draws = {kind: random.Random(f"{self.seed} {kind}") for kind in KINDS}  # noqa: S311 (repeatable on purpose)
        self.is_on = True

    def strikes(self, kind: FaultKind, what: str) -> bool:
        """Say whether a fault strikes here; asking counts the point."""
        if not self.is_on:
            return False
        self._points[kind] += 1
        point = self._points[kind]
        drawn = self._draws[kind].random() < self._rates.get(kind, 0.0)
        if not drawn and point not in self._plan.get(kind, ()):
            return False
        self.log.append(Struck(kind, point, what))
        return True

    def draw(self, kind: FaultKind, low: float, high: float) -> float:
        """Return how much of a fault it is, between two bounds."""
        return self._draws[kind].uniform(low, high)

    def stop(self) -> None:
        """Let nothing fail any more."""
        self.is_on = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        struck = ", ".join(f"{kind} {point}" for kind, point, _ in self.log) or "none struck"
        return f"faults of seed {self.seed}: {struck}"


def _checked(kind: str) -> FaultKind:
    if kind not in KINDS:
        raise InvalidOption(f"unknown fault {kind!r}{nearest(kind, KINDS)}")
    return kind


def _checked_rate(kind: str, rate: float) -> float:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise InvalidOption(f"the rate of fault {kind!r} must be from 0 to 1, got {rate!r}")
    return float(rate)

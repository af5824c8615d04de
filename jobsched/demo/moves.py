"""A decision of the balancer in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobsched.report import Decision

__all__ = ["changes", "is_move", "reason", "telling"]


def is_move(decision: Decision) -> bool:
    """Tell whether workers changed their category: the first placement moves none."""
    return any(decision.before.values()) and bool(_changed(decision))


def changes(decision: Decision) -> str:
    """Return which categories' workers changed, and how: ``compress 4→1, index 0→3``."""
    return ", ".join(f"{name} {before}→{after}" for name, before, after in _changed(decision))


def reason(decision: Decision) -> str:
    """Return why: the category that gained most, and what the rule says of it."""
    gains = {name: after - before for name, before, after in _changed(decision)}
    if not gains:
        return ""
    winner = max(gains, key=lambda name: gains[name])
    return f"{winner}: {decision.reasons[winner]}"


def telling(decisions: Iterable[Decision], count: int) -> Sequence[Decision]:
    """Return the decisions that moved most workers, at most `count`, in their order."""
    moved = [decision for decision in decisions if is_move(decision)]
    largest = sorted(moved, key=lambda decision: decision.moves, reverse=True)[:count]
    return [decision for decision in moved if decision in largest]


def _changed(decision: Decision) -> list[tuple[str, int, int]]:
    """Return name, workers before and workers after where they differ."""
    return [
        (name, decision.before.get(name, 0), after)
        for name, after in decision.after.items()
        if after != decision.before.get(name, 0)
    ]

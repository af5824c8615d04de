"""How a fixed budget of workers is shared out among the categories: a pure rule.

    weight = priority x backlog              share = budget x weight / sum of all weights

The steps, in the order of `allocate`: reserve the minima, give each category with work a worker,
water-fill the shares between those floors and the ceilings, round them, damp the moves, and leave
spare workers where they are. No clock and no I/O: the same inputs give the same answer, so every
decision can be shown, explained and replayed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from jobsched.errors import InvalidOption

__all__ = ["PRIORITIES", "Allocation", "Demand", "allocate"]

PRIORITIES = (1e-6, 1e6)
"""The least and the greatest priority: what lies between keeps the sums of weights exact enough."""

PRIOR_RUN_S = 0.05
"""Mean run time assumed for a category that has none measured: unknown must not mean weight 0."""

ROUNDING = 0.5
"""How far rounding takes a number from its ideal; damping is what comes on top."""

MISPLACED_SHARE = 0.1
"""Damping may leave at most this part of the workers further from the ideal than rounding does.

So the whole is within 90 % of what whole workers allow, while a single category may be off by the
noise of its backlog: ±20 % of it moves hardly anybody with 10 workers, ±10 % nobody with 100.
"""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one category asks for.

    `priority` is its weight, `backlog` counts pending, in progress and due within the look-ahead.
    `mean_run_s` is used with ``weigh_by="work"`` alone. `starved_s` is how long the category has
    had work and no worker; it orders the categories when there are more of them than workers.
    """

    priority: float
    backlog: int
    min_workers: int = 0
    max_workers: int | None = None
    mean_run_s: float | None = None
    starved_s: float = 0.0

    def __post_init__(self) -> None:
        least, most = PRIORITIES
        if not least <= self.priority <= most:
            raise InvalidOption(f"priority must be from {least:g} to {most:g}, got {self.priority:g}")

    def limit(self, budget: int) -> int:
        """Return the most workers the category may have."""
        return budget if self.max_workers is None else min(budget, self.max_workers)

    def weight(self, weigh_by: str) -> float:
        """Return the category's weight. Raises InvalidOption for an unknown `weigh_by`."""
        if weigh_by == "backlog":
            return self.priority * self.backlog
        if weigh_by == "work":
            return self.priority * self.backlog * (self.mean_run_s or PRIOR_RUN_S)
        raise InvalidOption(f"weigh_by must be 'backlog' or 'work', got {weigh_by!r}")


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision: `workers` per category, the fractional `ideal` behind it, one line why."""

    workers: dict[str, int]
    ideal: dict[str, float]
    reasons: dict[str, str]


def allocate(
    budget: int,
    demands: Mapping[str, Demand],
    current: Mapping[str, int],
    *,
    damping: float = 0.5,
    weigh_by: str = "backlog",
) -> Allocation:
    """Share `budget` workers out among the categories of `demands`, which now have `current`.

    The sum is always min(budget, sum of the maxima). Minima are reserved, with work or without; if
    they exceed the budget, those of the highest priority are served first. A category with work gets
    a worker at once where the budget has one for each of them.

    Otherwise the seats beyond the minima go by priority x (1 + starved_s), and each category has its
    turn: with n categories, s seats, m = ceil(n / s) and a call every t seconds, one whose priority
    is 1/r of the highest waits at most r (1 + m t) + m t seconds, plus the rest of a running job.
    (From r (1 + m t) on, no other category can overtake it twice within m calls.)

    A category keeps its number while that is less than 0.5 + damping x max(1, ideal / 2) workers
    from its ideal, unless the kept numbers together would leave a tenth of the workers further from
    it than rounding does: small or noisy changes move nobody, a large one is met by this very call.
    Names in `current` without a demand are ignored. Raises InvalidOption for an unknown `weigh_by`.
    """
    demands = dict(sorted(demands.items()))  # sums of floats must not depend on the caller's order
    held = {name: current.get(name, 0) for name in demands}
    weights = {name: demand.weight(weigh_by) for name, demand in demands.items()}
    low = _floors(budget, demands, held)
    high = _ceilings(budget, demands, low)
    ideal = _water_fill(min(budget, sum(high.values())), weights, low, high)
    wanted = {name: min(max(held[name], low[name]), high[name]) for name in demands}
    target = _round(ideal, demands)
    needed = _damp(wanted, ideal, target, damping)
    workers = _place_spare(budget, demands, needed, held)
    total = sum(weights.values())
    reasons = {
        name: _reason(demand, weights[name], total, ideal[name], weigh_by)
        + _remark(demand, held[name], target[name], needed[name], workers[name])
        for name, demand in demands.items()
    }
    return Allocation(workers=workers, ideal=ideal, reasons=reasons)


def _floors(budget: int, demands: Mapping[str, Demand], held: Mapping[str, int]) -> dict[str, int]:
    """Return the workers each category gets in any case: its minimum, or a seat if it has work.

    Of equal claims to a seat, that of a category which has a worker wins: a tie moves nobody.
    """
    floors = dict.fromkeys(demands, 0)
    for name in sorted(demands, key=lambda name: (-demands[name].priority, name)):
        minimum = min(demands[name].min_workers, demands[name].limit(budget))
        floors[name] = min(minimum, budget - sum(floors.values()))
    seats = budget - sum(floors.values())
    for name in sorted(
        (name for name, demand in demands.items() if _has_claim(demand, floors[name], budget)),
        key=lambda name: (-_urgency(demands[name]), held[name] == 0, name),
    )[:seats]:
        floors[name] = 1
    return floors


def _has_claim(demand: Demand, floor: int, budget: int) -> bool:
    """Tell whether the category has work, may have a worker, and is not sure of one yet."""
    return demand.backlog > 0 and floor == 0 and demand.limit(budget) > 0


def _urgency(demand: Demand) -> float:
    """Return the order in which categories get the too few seats: priority, and age in seconds."""
    return demand.priority * (1 + demand.starved_s)


def _ceilings(budget: int, demands: Mapping[str, Demand], low: Mapping[str, int]) -> dict[str, int]:
    """Return the most workers each category has a use for: never more than jobs."""
    return {
        name: max(low[name], min(demand.backlog, demand.limit(budget))) for name, demand in demands.items()
    }


def _water_fill(
    total: int, weights: Mapping[str, float], low: Mapping[str, int], high: Mapping[str, int]
) -> dict[str, float]:
    """Share `total` by weight, each share within its bounds: clamp(level x weight), one level for all.

    The level is found as CSS Flexible Box Layout §9.7 does it: settle those on the side of the
    bounds that is violated more, share the rest out again. Each round settles at least one.
    """
    shares: dict[str, float] = {name: low[name] for name in weights if low[name] == high[name]}
    while unsettled := [name for name in weights if name not in shares]:
        level = (total - sum(shares.values())) / sum(weights[name] for name in unsettled)
        clamped = {name: min(max(level * weights[name], low[name]), high[name]) for name in unsettled}
        raised = {name: clamped[name] - level * weights[name] for name in unsettled}
        excess = sum(raised.values())
        settled = {name: clamped[name] for name in unsettled if raised[name] * excess > 0}
        shares |= settled or clamped
    return {name: round(shares[name], 9) for name in weights}


def _round(ideal: Mapping[str, float], demands: Mapping[str, Demand]) -> dict[str, int]:
    """Round to whole workers of the same sum: largest remainder, then priority, then name."""
    rounded = {name: math.floor(share) for name, share in ideal.items()}
    missing = round(sum(ideal.values())) - sum(rounded.values())
    by_remainder = sorted(
        ideal, key=lambda name: (round(rounded[name] - ideal[name], 9), -demands[name].priority, name)
    )
    for name in by_remainder[:missing]:
        rounded[name] += 1
    return rounded


def _damp(
    wanted: Mapping[str, int], ideal: Mapping[str, float], target: dict[str, int], damping: float
) -> dict[str, int]:
    """Move from `wanted` (the present numbers within their bounds) towards `target` where it matters.

    Those far from their ideal go to the target, the others keep their number, and as many of them
    as the sum requires follow, furthest first. Every number ends between its two ends; that is why
    the result, handed in again, stays as it is.
    """
    kept = {
        name: wanted[name] if _is_near(wanted[name], ideal[name], damping) else target[name] for name in ideal
    }
    surplus = sum(kept.values()) - sum(target.values())
    step = -1 if surplus > 0 else 1
    for _ in range(abs(surplus)):
        behind = [name for name in kept if (target[name] - kept[name]) * step > 0]
        kept[max(behind, key=lambda name: (ideal[name] - kept[name]) * step)] += step
    misplaced = _unmet(ideal, kept) - _unmet(ideal, target)
    return target if misplaced > MISPLACED_SHARE * sum(target.values()) else kept


def _is_near(workers: int, ideal: float, damping: float) -> bool:
    """Tell whether the number is close enough to be left alone."""
    return abs(ideal - workers) < ROUNDING + damping * max(1, ideal / 2)


def _unmet(ideal: Mapping[str, float], workers: Mapping[str, int]) -> float:
    """Return how many workers are missing where they should be."""
    return sum(max(0.0, ideal[name] - workers[name]) for name in ideal)


def _place_spare(
    budget: int, demands: Mapping[str, Demand], needed: Mapping[str, int], held: Mapping[str, int]
) -> dict[str, int]:
    """Place the workers that nobody needs: an idle worker costs nothing, moving it does.

    First those who have them keep them, then the rest is spread by priority below the maxima.
    """
    limits = {name: demand.limit(budget) for name, demand in demands.items()}
    stay = {name: min(held[name], limits[name]) for name in demands}
    return _spread(budget, demands, _spread(budget, demands, needed, stay), limits)


def _spread(
    budget: int, demands: Mapping[str, Demand], workers: Mapping[str, int], limits: Mapping[str, int]
) -> dict[str, int]:
    """Add workers up to `limits`, one by one, in proportion to priority (D'Hondt's divisors)."""
    spread = dict(workers)
    room = sum(max(0, limits[name] - spread[name]) for name in spread)
    for _ in range(min(room, budget - sum(spread.values()))):
        below = [name for name in spread if spread[name] < limits[name]]
        spread[max(below, key=lambda name: demands[name].priority / (spread[name] + 1))] += 1
    return spread


def _reason(demand: Demand, weight: float, total: float, ideal: float, weigh_by: str) -> str:
    """Return the category's share as the user's rule has it, in figures."""
    if demand.backlog <= 0:
        return "no work"
    run = f" x {demand.mean_run_s or PRIOR_RUN_S:g} s" if weigh_by == "work" else ""
    product = f"priority {demand.priority:g} x backlog {demand.backlog}{run} = {weight:g}"
    return f"{product} of {total:g}: ideal {ideal:.1f}"


def _remark(demand: Demand, held: int, target: int, needed: int, workers: int) -> str:
    """Return what made the number differ from the plain share, if anything did."""
    has_work = demand.backlog > 0
    remarks = (
        (needed < workers <= held, "spare worker stays"),
        (needed < workers, "spare worker placed"),
        (workers == demand.max_workers, "at its maximum"),
        (workers < demand.min_workers, "minimum cut by the budget"),
        (has_work and workers == 0, "waits for its turn: more categories than workers"),
        (has_work and workers == 1 and held == 0, "had work and no worker"),
        (needed != target, f"damped: would be {target}"),
        (0 < workers == demand.min_workers, "minimum"),
        (0 < workers == demand.backlog, "a worker for each job"),
    )
    return next((f"; {text}" for applies, text in remarks if applies), "")

"""The jobs of a generated load: when each comes, where it goes, what it does. A function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jobsched.bench.arrivals import Arrivals
from jobsched.bench.draws import Draw, parse_run_time, parse_share

__all__ = ["MOST_JOBS", "Kind", "Planned", "Recorded", "from_trace", "generated", "mix", "parse_mix"]

MOST_JOBS = 1_000_000
"""Jobs that one load has at most."""


class Planned(NamedTuple):
    """One job of a load: due `at_s` seconds after the start; it runs `run_s` seconds."""

    at_s: float
    category: str
    run_s: float
    fails: bool


class Recorded(NamedTuple):
    """A job of a recorded load. `run_s` is None where the record says nothing of it."""

    at_s: float
    category: str
    run_s: float | None


class Kind(NamedTuple):
    """What jobs of a category are like, and how many of all they are, by weight."""

    weight: float
    run_time: Draw
    failing: float


def parse_mix(text: str) -> dict[str, float]:
    """Return the weight of each category in a text like ``mail=3,reports=1``. Raises ValueError."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = -1.0
        if not name or not 0 < weight <= MOST_JOBS or name in weights:
            raise ValueError(
                f"{part!r}: expected each category once with its weight, like 'mail=3,reports=1'"
            )
        weights[name] = weight
    return weights


def mix(weights: Mapping[str, float], run_times: Sequence[str], failing: Sequence[str]) -> dict[str, Kind]:
    """Return what the jobs of each category are like.

    `run_times` and `failing` are texts, each for all categories or, as ``mail=5ms``, for one of them.
    Raises ValueError.
    """
    times = _by_category(weights, run_times, "0s")
    shares = _by_category(weights, failing, "0%")
    return {
        name: Kind(weight, parse_run_time(times[name]), parse_share(shares[name]))
        for name, weight in weights.items()
    }


def _by_category(weights: Mapping[str, float], texts: Sequence[str], default: str) -> dict[str, str]:
    """Return the text that holds for each category: its own, else the last one for all."""
    found = dict.fromkeys(weights, next((text for text in reversed(texts) if "=" not in text), default))
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name not in found:
            raise ValueError(f"{text!r} is for a category that gets no jobs, unlike {', '.join(found)}")
        if equals:
            found[name] = value
    return found


def generated(arrivals: Arrivals, kinds: Mapping[str, Kind], seed: int) -> Iterator[Planned]:
    """Yield jobs in the order of their arrival, without end.

    What one source of randomness decides does not depend on the others: with another mix the same
    seed gives the same arrivals.
    """
    when, where, how = (random.Random(f"{seed}/{what}") for what in ("when", "where", "how"))  # noqa: S311 (no secrets)
    names, weights = list(kinds), [kind.weight for kind in kinds.values()]
    for at_s in arrivals(when):
        name = where.choices(names, weights)[0]
        kind = kinds[name]
        yield Planned(at_s, name, kind.run_time(how), how.random() < kind.failing)


def from_trace(recorded: Iterable[Recorded], kinds: Mapping[str, Kind], seed: int) -> Iterator[Planned]:
    """Yield the jobs of a recorded load; what it does not say of them comes from their categories."""
    how = random.Random(f"{seed}/how")  # noqa: S311 (no secret)
    for job in recorded:
        kind = kinds[job.category]
        run_s = kind.run_time(how) if job.run_s is None else job.run_s
        yield Planned(job.at_s, job.category, run_s, how.random() < kind.failing)

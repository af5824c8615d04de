"""How long generated jobs run: distributions, as functions of a source of randomness."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from jobsched.duration import parse_duration

__all__ = ["Draw", "parse_run_time", "parse_share"]

Draw = Callable[[random.Random], float]
"""Gives one value of a distribution: seconds."""

LONGEST_S = 3600.0
"""No job is made to run longer than this: two of these distributions have no end."""

_WIDEST = 5.0  # sigma of a lognormal distribution


def parse_run_time(text: str) -> Draw:
    """Return the distribution of run times that a text stands for.

    ``5ms``, ``uniform:1ms,20ms``, ``exponential:5ms`` (its mean), ``lognormal:5ms,1.2`` (its median,
    and the standard deviation of its logarithm). Raises ValueError for anything else.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return _constant(_seconds(text))
    numbers = rest.split(",")
    match name, len(numbers):
        case "constant", 1:
            return _constant(_seconds(rest))
        case "uniform", 2:
            return _uniform(_seconds(numbers[0]), _seconds(numbers[1]))
        case "exponential", 1:
            return _exponential(_seconds(rest))
        case "lognormal", 2:
            return _lognormal(_seconds(numbers[0]), _sigma(numbers[1]))
    raise ValueError(
        f"{text!r} is no run time, expected one like 5ms, uniform:1ms,20ms, exponential:5ms"
        " or lognormal:5ms,1.2"
    )


def parse_share(text: str) -> float:
    """Return the share that a text stands for: ``2%`` or ``0.02``. Raises ValueError."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0% to 100%, got {text!r}")
    return share


def _constant(seconds: float) -> Draw:
    return lambda _: seconds


def _uniform(low: float, high: float) -> Draw:
    return lambda rng: rng.uniform(low, high)


def _exponential(mean: float) -> Draw:
    return lambda rng: min(LONGEST_S, rng.expovariate(1 / mean)) if mean else 0.0


def _lognormal(median: float, sigma: float) -> Draw:
    return lambda rng: min(LONGEST_S, median * rng.lognormvariate(0.0, sigma))


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > LONGEST_S:
        raise ValueError(f"a run time is at most 1h, got {text!r}")
    return seconds


def _sigma(text: str) -> float:
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= _WIDEST:
        raise ValueError(f"the width of a lognormal run time is from 0 to {_WIDEST:g}, got {text!r}")
    return sigma

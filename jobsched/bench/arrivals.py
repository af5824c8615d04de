"""When jobs arrive: arrival processes, as functions of a rate and a source of randomness.

Each gives the times of the arrivals, in seconds from the start, in order and without end.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

from jobsched.duration import parse_duration

__all__ = ["Arrivals", "Step", "burst", "constant", "parse_arrivals", "poisson", "step"]

Arrivals = Callable[[random.Random], Iterator[float]]
"""An arrival process whose rate is settled."""

Step = tuple[float, float]
"""From so many seconds on, so many jobs a second."""

_LARGEST_BURST = 100_000


def constant(rng: random.Random, *, rate: float) -> Iterator[float]:
    """Yield one arrival every 1 / `rate` seconds."""
    del rng
    return (number / rate for number in itertools.count())


def poisson(rng: random.Random, *, rate: float) -> Iterator[float]:
    """Yield arrivals that know nothing of each other, `rate` a second on average."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at


def burst(rng: random.Random, *, rate: float, size: int) -> Iterator[float]:
    """Yield `size` arrivals at once, then none for so long that they are `rate` a second over time."""
    del rng
    return (number // size * size / rate for number in itertools.count())


def step(rng: random.Random, *, steps: Sequence[Step]) -> Iterator[float]:
    """Yield evenly spaced arrivals whose rate changes at given times; the first step begins at 0.

    A rate of 0 is a pause. What a step has begun of an arrival, the next one completes.
    """
    del rng
    ends = [start for start, _ in steps[1:]] + [math.inf]
    rest = 0.0  # of an arrival, at the beginning of a step
    for (start, rate), end in zip(steps, ends, strict=True):
        if not rate:
            continue
        come = 0
        while (at := start + (rest + come) / rate) < end:
            yield at
            come += 1
        rest += come - (end - start) * rate


def parse_arrivals(text: str, rate: float) -> Arrivals:
    """Return the process that a text stands for, of so many jobs a second.

    ``constant``, ``poisson``, ``burst:50`` (so many at once), ``step:10s=200,20s=50`` (from then on
    so many a second; `rate` before). Raises ValueError for anything else.
    """
    name, _, rest = text.partition(":")
    if name in ("constant", "poisson") and not rest:
        return functools.partial(constant if name == "constant" else poisson, rate=rate)
    if name == "burst":
        return functools.partial(burst, rate=rate, size=_burst_size(rest))
    if name == "step":
        return functools.partial(step, steps=_steps(rest, rate))
    raise ValueError(
        f"{text!r} is no arrival process, expected constant, poisson, burst:50 or step:10s=200,20s=50"
    )


def _burst_size(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= _LARGEST_BURST:
        return int(text)
    raise ValueError(f"a burst has from 1 to {_LARGEST_BURST:,} jobs, like burst:50, got {text!r}")


def _steps(text: str, rate: float) -> list[Step]:
    """Return the steps that a text names, after the first one at `rate`."""
    steps: list[Step] = [(0.0, rate)]
    for part in text.split(","):
        at, _, new_rate = part.partition("=")
        try:
            steps.append((parse_duration(at), float(new_rate)))
        except ValueError:
            raise ValueError(f"{part!r} is no step, expected a time and a rate like '10s=200'") from None
        if not 0 <= steps[-1][1] < math.inf:
            raise ValueError(f"a rate must be 0 or more, got {part!r}")
        if steps[-1][0] < steps[-2][0]:
            raise ValueError(f"steps must be in the order of their times, got {text!r}")
    return steps

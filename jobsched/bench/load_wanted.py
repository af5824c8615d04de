"""What a user wants of a load, and the jobs that this means."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobsched.bench.arrivals import parse_arrivals
from jobsched.bench.load_plan import MOST_JOBS, Kind, Planned, from_trace, generated, mix, parse_mix
from jobsched.bench.trace import read_trace
from jobsched.config import Config
from jobsched.errors import InvalidOption

__all__ = ["Wanted", "plan_of", "settings_of", "span_of"]

_MIX = "light=3,heavy=1"
_TIMES = ("light=exponential:2ms", "heavy=exponential:20ms")
_SPAN_S = 10.0
_LEAST_S = 0.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A load as its options say it, in their words; `for_s` in seconds.

    What is None is left to the defaults; a trace takes the place of arrival, rate and mix.
    """

    arrival: str = "poisson"
    rate: float = 100.0
    for_s: float | None = None
    jobs: int | None = None
    mix: str | None = None
    time: Sequence[str] = ()
    fail: Sequence[str] = ()
    trace: Path | None = None
    seed: int = 1

    @property
    def limit_s(self) -> float | None:
        """From when on no job comes any more."""
        is_endless = self.for_s is None and self.jobs is None and self.trace is None
        return _SPAN_S if is_endless else self.for_s


def plan_of(wanted: Wanted, config: Config | None) -> list[Planned]:
    """Return the jobs of a load, for the categories of a configuration if there is one.

    Raises InvalidOption for options that cannot be used, UnknownCategory.
    """
    try:
        plan = list(itertools.islice(_within(wanted, _jobs(wanted, config)), MOST_JOBS + 1))
    except InvalidOption:
        raise
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    if not plan:
        raise InvalidOption("no job is due in this time: raise --rate or --for")
    if len(plan) > MOST_JOBS:
        raise InvalidOption(f"a load has at most {MOST_JOBS:,} jobs: lower --rate or --for, or give --jobs")
    for name in {job.category for job in plan} if config else ():
        assert config is not None
        config.category(name)
    return plan


def _jobs(wanted: Wanted, config: Config | None) -> Iterator[Planned]:
    """Yield the jobs, however many they are. Raises ValueError."""
    if wanted.trace is not None:
        recorded = read_trace(wanted.trace)
        found = dict.fromkeys((job.category for job in recorded), 1.0)
        return from_trace(recorded, mix(found, wanted.time, wanted.fail), wanted.seed)
    arrivals = parse_arrivals(wanted.arrival, wanted.rate)
    return generated(arrivals, _kinds(wanted, config), wanted.seed)


def _kinds(wanted: Wanted, config: Config | None) -> Mapping[str, Kind]:
    if wanted.mix is not None:
        return mix(parse_mix(wanted.mix), wanted.time, wanted.fail)
    if config is not None:
        return mix(dict.fromkeys(config.categories, 1.0), wanted.time, wanted.fail)
    return mix(parse_mix(_MIX), wanted.time or _TIMES, wanted.fail)


def _within(wanted: Wanted, jobs: Iterable[Planned]) -> Iterator[Planned]:
    """Yield the jobs within the limits of time and number."""
    limit_s = wanted.limit_s
    if limit_s is not None:
        jobs = itertools.takewhile(lambda job: job.at_s < limit_s, jobs)
    return itertools.islice(jobs, wanted.jobs)


def span_of(wanted: Wanted, plan: Sequence[Planned]) -> float:
    """Return over how many seconds a load comes: the time asked for, unless the jobs run out before."""
    is_cut = wanted.jobs is not None and len(plan) == wanted.jobs
    if wanted.limit_s is None or is_cut:
        return max(plan[-1].at_s, _LEAST_S)
    return wanted.limit_s


def settings_of(wanted: Wanted) -> dict[str, Any]:
    """Return what was asked for, as a report keeps it."""
    replaced = ("arrival", "rate", "mix") if wanted.trace is not None else ()
    settings = {name: value for name, value in dataclasses.asdict(wanted).items() if name not in replaced}
    settings |= {"for_s": wanted.limit_s, "trace": wanted.trace and str(wanted.trace)}
    return {name: value for name, value in settings.items() if value is not None and value != ()}

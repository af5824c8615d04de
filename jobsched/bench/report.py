"""What a benchmark reports: every run, the median and spread of each figure, and the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import lmdb
import psutil

__all__ = ["Figures", "Tell", "machine", "measure", "quantile", "silent", "summary", "waits", "write_report"]

Figures = Mapping[str, Any]
"""What one run measured, by names that carry the unit. A value may be figures again: one set for each
of several sizes or rivals. What is no number is kept with the run and not summarized.
"""

Tell = Callable[[str, int, int | None], None]
"""Hears how far a run is: what is counted, how many are done, of how many where that is known."""

_SHORT_S = 10.0
_SHORT_RUNS = 5
_QUANTILES = (50, 95, 99)


def silent(what: str, done: int, total: int | None = None) -> None:
    """Tell nobody."""


def measure(
    name: str,
    run: Callable[[Tell], Figures],
    settings: Mapping[str, Any],
    *,
    runs: int | None = None,
    tell: Tell = silent,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Run a benchmark several times; return its report, which JSON can hold.

    Without `runs` it is 5 where the first takes less than 10 s on the `clock`, else 1.
    """
    at = datetime.now(UTC)
    here = machine(Path.cwd())
    done: list[Figures] = []
    began = clock()
    wanted = runs
    while wanted is None or len(done) < wanted:
        done.append(run(_of_run(tell, len(done) + 1)))
        if wanted is None:
            wanted = _SHORT_RUNS if clock() - began < _SHORT_S else 1
    return {
        "bench": name,
        "at": at.isoformat(timespec="seconds"),
        "machine": here,
        "settings": dict(settings),
        "runs": done,
        "median": summary(done, statistics.median),
        "spread": summary(done, lambda values: [min(values), max(values)]),
    }


def _of_run(tell: Tell, number: int) -> Tell:
    return lambda what, done, total: tell(f"run {number}, {what}", done, total)


def summary(runs: Sequence[Figures], of: Callable[[Sequence[float]], Any]) -> dict[str, Any]:
    """Return what `of` makes of each figure's values over the runs that have it."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run[name] for run in runs if name in run]
        if all(isinstance(value, Mapping) for value in values):
            found[name] = summary(values, of)
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found[name] = of(values)
    return found


def machine(place: Path) -> dict[str, Any]:
    """Return what the figures depend on beside us: cores, software, the file system of a place, and
    how loaded the machine is.
    """
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "jobsched": metadata.version("jobsched"),
        "py_lmdb": metadata.version("lmdb"),
        "lmdb": ".".join(map(str, lmdb.version())),
        "file_system": _file_system(place),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    """Return the model of the processor, as Linux names it."""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def _file_system(place: Path) -> str:
    """Return the type of the file system that holds a place: of the longest mount point above it."""
    place = place.resolve()
    above = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    # Of several on one mount point the last hides the others.
    best = max(enumerate(above), key=lambda found: (len(found[1].mountpoint), found[0]), default=None)
    return best[1].fstype if best else "unknown"


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values, by the nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def waits(values_ms: Iterator[float] | Sequence[float], prefix: str = "") -> dict[str, float]:
    """Return the median, the slow ends and the maximum of some waits, in milliseconds; nothing of none."""
    ordered = sorted(values_ms)
    if not ordered:
        return {}
    figures = {f"{prefix}p{share}_ms": round(quantile(ordered, share / 100), 3) for share in _QUANTILES}
    return {**figures, f"{prefix}max_ms": round(ordered[-1], 3)}


def write_report(report: Mapping[str, Any], file: Path) -> None:
    """Write a report as JSON, a figure a line, so that two of them can be compared. Raises OSError."""
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

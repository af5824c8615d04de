"""A recorded load: a file that says when jobs came, to which category, and how long they ran."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobsched.bench.load_plan import MOST_JOBS, Recorded
from jobsched.duration import parse_duration
from jobsched.errors import InvalidOption

__all__ = ["read_trace"]

_FIELDS = ("seconds", "category", "duration")


def read_trace(file: Path) -> list[Recorded]:
    """Return the jobs of a trace file, in the order of their arrival.

    JSON lines, ``{"seconds": 1.5, "category": "mail", "duration": 0.02}`` or ``[1.5, "mail", 0.02]``,
    or CSV with the same columns, with or without a line that names them. Times are seconds, or texts
    like ``20ms``; the duration may be left out. Raises InvalidOption with the line that is wrong.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            found = list(itertools.islice(_read(file, lines), MOST_JOBS + 1))
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"{file}: cannot be read: {error}") from None
    if not found:
        raise InvalidOption(f"{file}: has no jobs")
    if len(found) > MOST_JOBS:
        raise InvalidOption(f"{file}: has more than {MOST_JOBS:,} jobs")
    return sorted(found, key=lambda job: job.at_s)


def _read(file: Path, lines: Iterable[str]) -> Iterator[Recorded]:
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
    filled = ((number, line) for number, line in numbered if line)
    names: Sequence[str] = _FIELDS
    for place, (number, line) in enumerate(filled):
        values = _values(file, number, line)
        if place == 0 and isinstance(values, list) and "category" in values:
            names = values
            continue
        row = values if isinstance(values, Mapping) else dict(zip(names, values, strict=False))
        try:
            yield _recorded(row)
        except ValueError as error:
            raise InvalidOption(f"{file}:{number}: {error}") from None


def _values(file: Path, number: int, line: str) -> Any:
    """Return what a line holds: a list of values, or a mapping of them."""
    if line[0] not in "[{":
        return [value.strip() for value in next(csv.reader([line]))]
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InvalidOption(f"{file}:{number}: not JSON: {error}") from None
    return values


def _recorded(row: Mapping[str, Any]) -> Recorded:
    category, duration = row.get("category"), row.get("duration")
    if not isinstance(category, str) or not category:
        raise ValueError(f"expected seconds, category and perhaps duration, got {dict(row)!r}")
    has_none = duration is None or duration == ""
    return Recorded(_seconds(row.get("seconds")), category, None if has_none else _seconds(duration))


def _seconds(value: Any) -> float:
    """Return a time in seconds. Text may be a number (CSV knows nothing else) or have units."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"expected seconds, 0 or more, got {value!r}")
    return float(value)

"""What every benchmark's verb has: how often it runs, where its report goes, and how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobsched.cli.output import print_json, say
from jobsched.cli.progress import Progress
from jobsched.cli.table import print_table
from jobsched.errors import InvalidOption

__all__ = [
    "OutOption",
    "RunsOption",
    "WorkersOption",
    "check_out",
    "counts",
    "figure",
    "present",
    "print_report",
]

RunsOption = Annotated[
    int | None, typer.Option(min=1, help="How often. Default: 5 where a run takes less than 10 s, else 1.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the report there, as JSON.")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="How many workers.", show_default=True)]


def counts(option: str, text: str) -> list[int]:
    """Return the numbers that an option lists. Raises InvalidOption if one is none, or below 1."""
    try:
        found = [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise InvalidOption(f"{option}: {text!r} is no list of counts from 1 on: expected such as 1,4,16")
    return found


def present(
    name: str,
    run: Callable[..., Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    runs: int | None,
    json_output: bool,
    out: Path | None,
) -> None:
    """Run a benchmark with some settings as often as asked, and show its report.

    `run` takes the settings, and `tell`. Raises InvalidOption before anything is measured if the
    report cannot be written.
    """
    from jobsched.bench.report import measure, write_report  # noqa: PLC0415 (only these verbs need it)

    check_out(out)
    with Progress(doing="measuring", quiet=json_output) as progress:
        report = measure(name, lambda tell: run(**settings, tell=tell), settings, runs=runs, tell=progress)
    if out is not None:
        write_report(report, out)
    if json_output:
        print_json({**report["median"], **report})  # who wants one figure finds it at the top
    else:
        print_report(report)


def check_out(out: Path | None) -> None:
    """Raise InvalidOption if no file can be written there."""
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise InvalidOption(f"--out: cannot write {str(out)!r}: its folder must exist, and it must be none")


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report: the median of each figure and how far the runs are apart, then the machine."""
    rows = list(_rows(report["median"], report["spread"]))
    times = len(report["runs"])
    runs = f"{times} run{'' if times == 1 else 's'}"
    if times == 1:
        print_table(["figure", "value"], [row[:2] for row in rows], right=["value"])
    else:
        print_table(["figure", "median", "min", "max"], rows, right=["median", "min", "max"])
    here = report["machine"]
    say("")
    say(f"{runs}; {here['cores']} cores, load {here['load_average']:.1f} before")
    say(f"{here['cpu']}, {here['kernel']}, {here['file_system']}, Python {here['python']}")


def _rows(
    median: Mapping[str, Any], spread: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    for name, value in median.items():
        if isinstance(value, Mapping):
            yield from _rows(value, spread[name], f"{prefix}{name} ")
        else:
            least, most = spread[name]
            yield f"{prefix}{name}", figure(value), figure(least), figure(most)


def figure(value: float) -> str:
    """Return a number as people read it."""
    if isinstance(value, int) or value >= 1000:  # noqa: PLR2004 (no decimals from there)
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"

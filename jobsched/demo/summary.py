"""What the demo has shown: figures, moves, failures, and whether they agree with the files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobsched.clock import MICROSECONDS
from jobsched.demo.check import Check
from jobsched.demo.moves import changes, reason, telling
from jobsched.demo.results import CategoryFigures
from jobsched.report import Decision

__all__ = ["Failure", "Summary", "as_json", "print_summary"]

_TOLD_MOVES = 6
_TOLD_FAILURES = 20
_TOLD_WRONG = 5
_HEADERS = ("category", "jobs", "completed", "failed", "wait mean", "wait p95", "run mean", "run max")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed: the file, by its path in the library, and why."""

    category: str
    file: str
    reason: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a demo. `started_at` is in UTC microseconds, `elapsed_s` until the last job's end."""

    python: str
    library: str
    files: int
    workers: int
    started_at: int
    elapsed_s: float
    categories: dict[str, CategoryFigures]
    moves: int
    decisions: list[Decision]
    failures: list[Failure]
    check: Check


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain values, the decisions with their changes and reasons in words."""
    told: dict[str, Any] = msgspec.to_builtins(summary)
    told["jobs"] = sum(figures.jobs for figures in summary.categories.values())
    told["decisions"] = [
        {
            "at_s": (decision.at - summary.started_at) / MICROSECONDS,
            "before": decision.before,
            "after": decision.after,
            "backlog": decision.backlog,
            "reason": reason(decision),
        }
        for decision in summary.decisions
    ]
    told["check"]["ok"] = summary.check.is_good
    return told


def print_summary(summary: Summary, console: Console) -> None:
    """Print the summary for people, in 80 columns."""
    jobs = sum(figures.jobs for figures in summary.categories.values())
    console.print(
        f"\n{jobs:,} jobs on {summary.files:,} files of Python {summary.python} "
        f"in {summary.elapsed_s:.1f} s with {summary.workers} workers\n"
    )
    console.print(_table(summary.categories))
    _print_moves(summary, console)
    _print_failures(summary.failures, console)
    _print_check(summary.check, console)


def _table(categories: Mapping[str, CategoryFigures]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for header in _HEADERS:
        table.add_column(header, justify="left" if header == "category" else "right", no_wrap=True)
    for name, row in categories.items():
        times = (row.wait_mean_s, row.wait_p95_s, row.run_mean_s, row.run_max_s)
        counts = (row.jobs, row.completed, row.failed)
        table.add_row(name, *(f"{count:,}" for count in counts), *map(_time, times))
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _print_moves(summary: Summary, console: Console) -> None:
    console.print(f"\n{summary.moves} workers moved by the balancer; among its decisions:")
    for decision in telling(summary.decisions, _TOLD_MOVES):
        at_s = (decision.at - summary.started_at) / MICROSECONDS
        _print_line(console, f"  {at_s:.1f} s  {changes(decision)}")
        _print_line(console, f"    {reason(decision)}", "dim")


def _print_failures(failures: Sequence[Failure], console: Console) -> None:
    console.print(f"\n{len(failures)} failed:")
    for failure in itertools.islice(failures, _TOLD_FAILURES):
        _print_line(console, f"  {failure.category} {failure.file}")
        _print_line(console, f"    {failure.reason}", "dim")
    if len(failures) > _TOLD_FAILURES:
        console.print(f"  ... and {len(failures) - _TOLD_FAILURES} more: --json lists all")


def _print_check(check: Check, console: Console) -> None:
    style = "green" if check.is_good else "bold red"
    console.print()
    _print_line(console, f"jobs expected {check.expected:,}, ended {check.ended:,}")
    _print_line(console, f"bytes by the jobs {check.bytes_by_jobs:,}, of the files {check.bytes_of_files:,}")
    _print_line(console, f"sha256 by the jobs  {check.sha256_by_jobs[:32]}...")
    _print_line(console, f"       of the files {check.sha256_of_files[:32]}...")
    _print_line(console, f"checked against the files: {check.agree:,} of {check.expected:,} agree", style)
    for wrong in check.disagree[:_TOLD_WRONG]:
        _print_line(console, f"  not: {wrong}", style)


def _print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line whole: a terminal wraps it, a file keeps it."""
    console.print(Text(text, style), soft_wrap=True)

"""What `jobsched run` prints of its node where nobody watches a terminal: lines, or JSON.

The node's loop only leaves its latest report here; a thread of the view prints it, so that a
reader that is slow does not slow down the node.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from jobsched.cli.balance import decision_object
from jobsched.cli.output import clean, iso_time, local_time, print_json, say
from jobsched.job import State
from jobsched.report import CategoryReport, NodeReport

__all__ = ["LineView", "json_lines", "plain_lines", "report_object"]

_JOIN_S = 2.0  # a reader that has stopped must not keep a node that is done
_EVERY_S = 1.0
_ALWAYS = (State.PENDING, State.IN_PROGRESS, State.COMPLETED, State.FAILED)


class LineView:
    """Prints reports by a function, at most one in `every_s` seconds, and the last in any case."""

    def __init__(self, print_report: Callable[[NodeReport], None], every_s: float) -> None:
        self._print = print_report
        self._every_s = every_s
        self._latest: NodeReport | None = None  # written by the node's loop, taken by the thread
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def show(self, report: NodeReport) -> None:
        """Keep the latest report for the thread."""
        self._latest = report
        self._news.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._news.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            self._print_latest()
            self._over.wait(self._every_s)
        self._print_latest()

    def _print_latest(self) -> None:
        report, self._latest = self._latest, None
        if report is not None:
            try:
                self._print(report)
                sys.stdout.flush()
            except OSError:
                self._over.set()  # nobody reads any more; the node goes on


def json_lines() -> LineView:
    """Return the view that prints every report as a JSON object."""
    return LineView(lambda report: print_json(report_object(report)), every_s=0)


def plain_lines() -> LineView:
    """Return the view that prints a line when something has changed, at most one a second."""
    last = ""

    def print_changes(report: NodeReport) -> None:
        nonlocal last
        line = _line(report)
        if line != last:
            last = line
            say(f"{local_time(report.at)} {line}")

    return LineView(print_changes, every_s=_EVERY_S)


def _line(report: NodeReport) -> str:
    """Return the whole node in one line: jobs by state, then workers by category."""
    rows = report.categories.values()
    totals = {state: sum(row.count(state) for row in rows) for state in State}
    jobs = " ".join(f"{state}={count}" for state, count in totals.items() if count or state in _ALWAYS)
    workers = " ".join(f"{clean(name)}={row.busy}/{row.workers}" for name, row in report.categories.items())
    return f"{jobs} busy/workers: {workers}{' draining' if report.draining else ''}"


def report_object(report: NodeReport) -> dict[str, Any]:
    """Return a report as JSON has it."""
    return {
        "at": iso_time(report.at),
        "uptime_s": report.uptime_s,
        "ended": report.ended,
        "failed": report.failed,
        "moves": report.moves,
        "draining": report.draining,
        "categories": {name: _category_object(row) for name, row in report.categories.items()},
        "decision": report.decision and decision_object(report.decision),
    }


def _category_object(row: CategoryReport) -> dict[str, Any]:
    return {
        **{str(state): row.count(state) for state in State},
        "paused": row.paused,
        "workers": row.workers,
        "busy": row.busy,
    }

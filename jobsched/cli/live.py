"""The live table of `jobsched run` at a terminal."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobsched.cli.output import clean
from jobsched.job import State
from jobsched.report import CategoryReport, Decision, NodeReport

__all__ = ["LiveView", "picture"]

_STATES = (State.PENDING, State.SCHEDULED, State.IN_PROGRESS, State.COMPLETED, State.FAILED)
_TITLES = ("pending", "scheduled", "in progress", "completed", "failed")
_STUCK = (State.PARKED, State.QUARANTINED)
_EVERY_S = 0.25
_JOIN_S = 2.0  # a terminal that is stopped must not keep a node that is done
_SHORT_NAME = 12  # up to here two spaces between the columns fit 80 of them


class LiveView:
    """A table that is drawn anew four times a second, with the log's lines above it.

    A thread of its own does all of the writing: a terminal that is stopped does not stop the node,
    and rich's drawing is not for two threads.
    """

    def __init__(self, console: Console) -> None:
        self._latest: NodeReport | None = None  # written by the node's loop, read by the thread
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()  # filled by any thread
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._console = console
        self._live = Live(
            console=console,
            get_renderable=self._render,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, report: NodeReport) -> None:
        """Keep the latest report for the next drawing."""
        self._latest = report

    def print_above(self, line: str) -> None:
        """Keep a line to print it above the table."""
        self._lines.put(line)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        with self._live:
            while not self._over.wait(_EVERY_S):
                self._draw()
            self._print_lines()

    def _draw(self) -> None:
        self._print_lines()
        self._live.refresh()

    def _print_lines(self) -> None:
        while not self._lines.empty():
            self._console.print(self._lines.get(), soft_wrap=True)

    def _render(self) -> RenderableType:
        return picture(self._latest) if self._latest else Text("starting ...")


def picture(report: NodeReport) -> RenderableType:
    """Return a report as it is drawn: a headline, the categories, the balancer's reasons."""
    parts: list[RenderableType] = [_headline(report), _table(report)]
    if report.decision is not None:
        parts.append(_reasons(report.decision))
    return Group(*parts)


def _headline(report: NodeReport) -> Text:
    workers = sum(row.workers for row in report.categories.values())
    facts = f"up {_span(report.uptime_s)}, {workers} workers, {report.ended:,} ended, {report.moves:,} moves"
    text = Text.assemble(("jobsched", "bold"), f"  {facts}", no_wrap=True, overflow="ellipsis")
    if report.failed:
        text.append(f", {report.failed:,} failed", "red")
    if report.draining:
        text.append("  draining", "bold yellow")
    return text


def _table(report: NodeReport) -> Table:
    gap = 2 if max(map(len, report.categories), default=0) <= _SHORT_NAME else 1
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("category", max_width=40)  # the one that rich takes room from: it may wrap
    for title in (*_TITLES, "busy", "workers"):
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    for name, row in report.categories.items():
        table.add_row(_name(name, row), *_numbers(row))
    if len(report.categories) > 1:
        table.add_row(*_totals(report), style="dim")
    return table


def _name(name: str, row: CategoryReport) -> Text:
    text = Text(clean(name), "yellow" if row.paused else "", no_wrap=True, overflow="ellipsis")
    if row.paused:
        text.append(" paused")
    stuck = sum(row.count(state) for state in _STUCK)
    if stuck:
        text.append(f" +{stuck:,} stuck", "red")
    return text


def _numbers(row: CategoryReport) -> list[Text]:
    styles = ("", "blue", "cyan", "green", "red")
    counts = [
        Text(f"{row.count(state):,}", style=style if row.count(state) else "dim")
        for state, style in zip(_STATES, styles, strict=True)
    ]
    return [
        *counts,
        Text(f"{row.busy}", style="cyan" if row.busy else "dim"),
        Text(f"{row.workers}", style="bold"),
    ]


def _totals(report: NodeReport) -> list[str]:
    rows = report.categories.values()
    counts = [f"{sum(row.count(state) for row in rows):,}" for state in _STATES]
    return ["total", *counts, str(sum(row.busy for row in rows)), str(sum(row.workers for row in rows))]


def _reasons(decision: Decision) -> Group:
    """Return the last decision's reasons, a line each."""
    lines = [
        Text(f"{clean(name)}: {clean(reason)}", style="dim", no_wrap=True, overflow="ellipsis")
        for name, reason in decision.reasons.items()
    ]
    return Group(Text("\nthe balancer's last decision", style="dim"), *lines)


def _span(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"

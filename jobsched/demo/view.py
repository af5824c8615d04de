"""The live view of the demo: queues that fill and empty, and workers that move between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobsched.clock import MICROSECONDS
from jobsched.demo.moves import changes, is_move, reason
from jobsched.job import State
from jobsched.report import CategoryReport, Decision, NodeReport

__all__ = ["LineView", "LiveView", "SilentView", "View", "picture", "view_for"]

_WIDTH = 80
_BAR = 24
_BLOCKS = 14  # workers that fit in the line as blocks
_MOVES = 3
_WAITING = (State.SCHEDULED, State.PENDING, State.IN_PROGRESS)
_LINE_EVERY_S = 1.0


class View(Protocol):
    """Shows the node's reports while it is entered. `show` is called from the node's loop."""

    def show(self, report: NodeReport) -> None:
        """Take the node's latest report."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def view_for(console: Console, categories: Sequence[str], title: str, *, json_output: bool) -> View:
    """Return the view that fits: none beside JSON, live at a terminal, else lines."""
    if json_output:
        return SilentView()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, categories, title)
    return LineView(console, categories)


class SilentView:
    """Shows nothing."""

    def show(self, report: NodeReport) -> None:
        """Ignore the report."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class LineView(SilentView):
    """A line each second, for pipes and logs."""

    def __init__(self, console: Console, categories: Sequence[str]) -> None:
        self._console = console
        self._categories = categories
        self._next_s = 0.0

    def show(self, report: NodeReport) -> None:
        """Print the report if a second has gone by."""
        if report.uptime_s < self._next_s:
            return
        self._next_s = report.uptime_s + _LINE_EVERY_S
        idle = _idle(report)
        parts = [_phrase(name, report.categories[name], idle[name]) for name in self._categories]
        self._console.print(f"{report.uptime_s:5.1f} s  {'   '.join(parts)}", soft_wrap=True)


def _phrase(name: str, category: CategoryReport, idle: int) -> str:
    return f"{name} {_waiting(category):>5,} left {_blocks(category.busy, idle):<4}"


class LiveView:
    """A picture drawn anew by rich's own thread, so that a slow terminal does not slow the node."""

    def __init__(self, console: Console, categories: Sequence[str], title: str) -> None:
        self._categories = categories
        self._title = title
        self._latest: NodeReport | None = None  # this and what follows: written by the node's loop,
        self._peak = 1  # read by rich's thread
        self._moves: deque[Decision] = deque(maxlen=_MOVES)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def show(self, report: NodeReport) -> None:
        """Keep the report for the next drawing."""
        decision = report.decision
        if decision is not None and is_move(decision) and decision not in self._moves:
            self._moves.append(decision)
        self._peak = max([self._peak, *map(_waiting, report.categories.values())])
        self._latest = report

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        report = self._latest
        if report is None:
            return Text("starting the workers ...", "dim")
        return picture(report, self._categories, self._title, self._peak, list(self._moves))


def picture(
    report: NodeReport, categories: Sequence[str], title: str, peak: int, moves: Sequence[Decision]
) -> RenderableType:
    """Return a report as it is drawn, in 80 columns; `peak` is the longest queue so far."""
    lines = [Text.assemble((title, "bold"), f"   {report.uptime_s:.1f} s"), Text()]
    lines.append(Text(f" {'':9}{'queue':<{_BAR}} {'waiting':>7} {'done':>7} {'failed':>6}  workers", "dim"))
    idle = _idle(report)
    lines += [_row(name, report.categories[name], idle[name], peak) for name in categories]
    lines += [Text(), Text(f" {report.moves} workers moved by the balancer   ■ busy  □ idle", "dim")]
    for decision in reversed(moves):
        lines += _move(decision, report.at - int(report.uptime_s * MICROSECONDS))
    lines += [Text()] * (2 * (_MOVES - len(moves)))  # so that the picture keeps its height
    for line in lines:
        line.truncate(_WIDTH - 1, overflow="ellipsis")
        line.no_wrap = True
    return Group(*lines)


def _row(name: str, category: CategoryReport, idle: int, peak: int) -> Text:
    waiting, failed = _waiting(category), category.count(State.FAILED)
    filled = -(-waiting * _BAR // peak)
    return Text.assemble(
        f" {name:<9}",
        ("█" * filled, "cyan"),
        ("·" * (_BAR - filled), "dim"),
        f" {waiting:>7,}",
        (f" {category.count(State.COMPLETED):>7,}", "green"),
        (f" {failed:>6,}", "red" if failed else "dim"),
        f"  {_blocks(category.busy, idle)}",
    )


def _blocks(busy: int, idle: int) -> str:
    """Return workers as blocks, or in figures where they are too many."""
    return "■" * busy + "□" * idle if busy + idle <= _BLOCKS else f"{busy} ■ {idle} □"


def _idle(report: NodeReport) -> dict[str, int]:
    """Return how many idle workers each category has. One that is lent is busy where it serves, and
    not idle at home.
    """
    lent = sum(max(0, category.busy - category.workers) for category in report.categories.values())
    idle = {}
    for name, category in report.categories.items():
        away = min(lent, max(0, category.workers - category.busy))
        idle[name] = max(0, category.workers - category.busy) - away
        lent -= away
    return idle


def _move(decision: Decision, since: int) -> list[Text]:
    at_s = (decision.at - since) / MICROSECONDS
    return [
        Text.assemble((f" {at_s:.1f} s  ", "dim"), (changes(decision), "bold")),
        Text(f"   {reason(decision)}", "dim"),
    ]


def _waiting(category: CategoryReport) -> int:
    return sum(category.count(state) for state in _WAITING)

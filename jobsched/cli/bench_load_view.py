"""The view of a load that is going on: live at a terminal, a line a second elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from jobsched.bench.load_watch import CategoryNow, Progress
from jobsched.cli.output import clean, note

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LineView", "LiveView", "View", "line", "picture", "view_for"]

_LINE_EVERY_S = 1.0
_BAR = 40
_BLOCKS = 12  # workers that fit in the line as blocks
_NOTHING = CategoryNow(0, 0, 0)


class View(Protocol):
    """Shows how far a load is while it is entered. `show` is called from the load's own thread."""

    def show(self, progress: Progress) -> None:
        """Take the latest progress."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def view_for(title: str, categories: Sequence[str], jobs: int, span_s: float) -> View:
    """Return the view that fits stderr; stdout is for the results."""
    if sys.stderr.isatty():
        return LiveView(title, categories, jobs, span_s)
    return LineView(categories, jobs)


class LineView:
    """A line each second, for pipes and logs."""

    def __init__(self, categories: Sequence[str], jobs: int) -> None:
        self._categories = categories
        self._jobs = jobs
        self._next_s = _LINE_EVERY_S

    def show(self, progress: Progress) -> None:
        """Print the progress if a second has gone by."""
        if progress.elapsed_s >= self._next_s:
            self._next_s = progress.elapsed_s + _LINE_EVERY_S
            note(line(progress, self._categories, self._jobs))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def line(progress: Progress, categories: Sequence[str], jobs: int) -> str:
    """Return a load's progress in one line: the jobs in all, then waiting ones and workers by category."""
    refused, failed = sum(progress.refused.values()), sum(progress.failed.values())
    parts = [
        f"{progress.elapsed_s:5.1f} s  {sum(progress.dispatched.values()):,} of {jobs:,} dispatched",
        *([f"{refused:,} refused"] if refused else []),
        f"{sum(progress.completed.values()):,} completed",
        *([f"{failed:,} failed"] if failed else []),
    ]
    queues = [
        f"{clean(name)} {now.waiting:,} waiting {now.busy}/{now.workers} busy"
        for name, now in ((name, _now(progress, name)) for name in categories)
    ]
    return "   ".join([", ".join(parts), *queues])


class LiveView:
    """A picture drawn anew by rich's own thread."""

    def __init__(self, title: str, categories: Sequence[str], jobs: int, span_s: float) -> None:
        from rich.console import Console  # noqa: PLC0415 (slow to import)
        from rich.live import Live  # noqa: PLC0415

        self._title = title
        self._categories = categories
        self._jobs = jobs
        self._span_s = span_s
        self._latest: Progress | None = None  # written by the load's thread, read by rich's
        self._live = Live(
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, progress: Progress) -> None:
        """Keep the progress for the next drawing."""
        self._latest = progress

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        return picture(self._latest, self._title, self._categories, self._jobs, self._span_s)


def picture(
    progress: Progress | None, title: str, categories: Sequence[str], jobs: int, span_s: float
) -> RenderableType:
    """Return a load's progress as it is drawn, in 80 columns."""
    from rich.console import Group  # noqa: PLC0415 (slow to import)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if progress is None:
        return Text(f"{title}: starting ...", "dim")
    sent = sum(progress.dispatched.values())
    filled = sent * _BAR // max(1, jobs)
    is_over = progress.elapsed_s > span_s and sent >= jobs
    rest = ", waiting for the last jobs" if is_over else f" of {span_s:g} s"
    head = Text.assemble((title, "bold"), f"   {progress.elapsed_s:.1f} s{rest}")
    bar = Text.assemble(
        " ", ("█" * filled, "cyan"), ("·" * (_BAR - filled), "dim"), f" {sent:,} of {jobs:,} dispatched"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(" category", max_width=24, no_wrap=True, overflow="ellipsis")
    for name in ("sent", "refused", "completed", "failed", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("workers", no_wrap=True)
    for name in categories:
        now = _now(progress, name)
        failed, refused = progress.failed[name], progress.refused[name]
        table.add_row(
            Text(f" {clean(name)}"),
            f"{progress.dispatched[name]:,}",
            Text(f"{refused:,}", "yellow" if refused else "dim"),
            Text(f"{progress.completed[name]:,}", "green"),
            Text(f"{failed:,}", "red" if failed else "dim"),
            f"{now.waiting:,}",
            _blocks(now),
        )
    return Group(head, bar, Text(), table)


def _now(progress: Progress, name: str) -> CategoryNow:
    return progress.node.categories.get(name, _NOTHING) if progress.node else _NOTHING


def _blocks(now: CategoryNow) -> str:
    """Return workers as blocks, or in figures where they are too many."""
    idle = max(0, now.workers - now.busy)
    return "■" * now.busy + "□" * idle if now.busy + idle <= _BLOCKS else f"{now.busy} ■ {idle} □"

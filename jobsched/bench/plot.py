"""Pictures of reports, drawn by matplotlib: an extra that only `--plot` needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobsched.amount import many
from jobsched.errors import InvalidOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_load", "plot_peers", "require_matplotlib"]

_OURS = "#d1495b"
_THEIRS = "#a9b4c2"
_COLOURS = ("#2e6f95", "#e07a1f", "#4f8a4c", "#8e5ea2", "#b5893a", "#56a3a6", "#c05780", "#6b6b6b")
_GRID = "#e3e6ea"
_DPI = 150
_FLUSHES = {"always": "at every write", "everysec": "every second", "no": "when the system wants to"}


def require_matplotlib(file: Path | None = None) -> None:
    """Raise InvalidOption if nothing could be drawn, or a file not written: before anything is measured."""
    if find_spec("matplotlib") is None:
        raise InvalidOption("--plot needs matplotlib: pip install 'jobsched[plot]'")
    if file is not None and file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InvalidOption(f"--plot: expected a file like figure.png, got {str(file)!r}")
    if file is not None and not file.absolute().parent.is_dir():
        raise InvalidOption(f"--plot: there is no folder {str(file.parent)!r}")


def plot_load(report: Mapping[str, Any], file: Path) -> None:
    """Draw the last run of a load: jobs waiting and workers, per category over time."""
    figure = _figure(9, 5.6)
    figures = report["runs"][-1]
    queues, workers = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_load(queues, workers, figures)
    median = report["median"]
    _title(
        figure,
        f"{median['accepted']:,.0f} jobs, {median['rate_reached']:,.0f} a second:"
        f" wait p50 {median.get('p50_ms', 0):,.1f} ms, p99 {median.get('p99_ms', 0):,.1f} ms",
        _settings(report),
    )
    _save(figure, file)


def _draw_load(queues: Axes, workers: Axes, figures: Mapping[str, Any]) -> None:
    samples = figures["samples"]
    times = [sample["t_s"] for sample in samples]
    names = list(figures["categories"])
    for colour, name in zip(_cycled(names), names, strict=True):
        rows = [sample.get(name, [0, 0, 0]) for sample in samples]
        queues.plot(times, [row[0] for row in rows], color=colour, label=name, linewidth=1.6)
    bottom = [0.0] * len(samples)
    for colour, name in zip(_cycled(names), names, strict=True):
        counts = [sample.get(name, [0, 0, 0])[1] for sample in samples]
        top = [low + count for low, count in zip(bottom, counts, strict=True)]
        workers.fill_between(times, bottom, top, step="post", color=colour, alpha=0.8, linewidth=0)
        bottom = top
    queues.set_ylabel("jobs waiting or running")
    workers.set_ylabel("workers")
    workers.set_xlabel("seconds")
    for axes in (queues, workers):
        _plain(axes)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, times[-1] if times and times[-1] else 1)
        axes.grid(axis="y", color=_GRID)
    workers.yaxis.get_major_locator().set_params(integer=True)
    queues.legend(frameon=False, loc="upper left", ncols=min(4, len(names)))


def plot_peers(report: Mapping[str, Any], file: Path) -> None:
    """Draw bars of a comparison with others: ours stands out; those skipped are named."""
    settings = report["settings"]
    panels = [
        ("jobs_per_s", "drain: jobs a second"),
        ("cpu_us", "drain: processor time for a job in all processes, µs"),
        ("enqueue_jobs_per_s", "enqueue, one call at a time: jobs a second"),
        ("p99_ms", f"from call to start at {settings['rate']:g} a second, ms: p50 / p99"),
    ]
    rows = max(len(report["median"]), 2)
    figure = _figure(11, 2.6 + 0.66 * rows)
    for axes, (key, title) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        _draw_bars(axes, report, key, is_less_better=key in ("cpu_us", "p99_ms"))
        axes.set_title(title, fontsize=10, loc="left")
    skipped = ", ".join(report.get("skipped", {}))
    flush = _FLUSHES[settings["appendfsync"]]
    _title(
        figure,
        "jobsched and others: two workers each, jobs that do nothing (log scales)",
        f"Redis flushes its log {flush}, the others flush every commit\n{_settings(report)}"
        + (f"; skipped: {skipped}" if skipped else ""),
    )
    _save(figure, file)


def _draw_bars(axes: Axes, report: Mapping[str, Any], key: str, *, is_less_better: bool) -> None:
    """Draw one figure of each that has it, the best on top; of waits the median too."""
    found = {name: row for name, row in report["median"].items() if row.get(key) is not None}
    names = sorted(found, key=lambda name: found[name][key], reverse=is_less_better)
    if not names:
        axes.set_axis_off()
        return
    is_wait = key == "p99_ms"
    colours = [_OURS if name.startswith("jobsched") else _THEIRS for name in names]
    values = [found[name][key] for name in names]
    axes.barh(names, values, color=colours, height=0.68, alpha=0.55 if is_wait else 1)
    if is_wait:
        axes.barh(names, [found[name]["p50_ms"] for name in names], color=colours, height=0.68)
    axes.set_xscale("log")
    least = min(found[name]["p50_ms" if is_wait else key] for name in names)
    axes.set_xlim(10 ** math.floor(math.log10(least)) / 1.5, max(values) * 9)
    for place, name in enumerate(names):
        row = found[name]
        text = f"{row['p50_ms']:,.1f} / {row['p99_ms']:,.1f}" if is_wait else f"{row[key]:,.0f}"
        weight = "bold" if name.startswith("jobsched") else "normal"
        axes.annotate(
            text,
            (row[key], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            weight=weight,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},  # no line through a number
        )
    for label in axes.get_yticklabels():
        if label.get_text().startswith("jobsched"):
            label.set(weight="bold", color=_OURS)
    _plain(axes)
    axes.grid(axis="x", color=_GRID)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="both", length=0, labelcolor="#666666", labelsize=8)
    axes.spines["bottom"].set_visible(False)


def _settings(report: Mapping[str, Any]) -> str:
    """Return when, on what and how often it was measured, in one line."""
    machine = report["machine"]
    note = f"{report['note']}; " if report.get("note") else ""
    return (
        f"{note}{report['at'][:10]}, {machine['cores']} cores, {machine['cpu']}, Python {machine['python']},"
        f" {machine['file_system']}, load {machine['load_average']:g}; {many(len(report['runs']), 'run')}"
    )


def _cycled(names: Sequence[str]) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(names))]


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure. Without pyplot: that looks for a screen."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)

    return Figure(figsize=(width, height), layout="constrained")


def _title(figure: Figure, title: str, small: str) -> None:
    figure.suptitle(f"{title}", x=0.01, ha="left", fontsize=12, weight="bold")
    figure.supxlabel(small, x=0.01, ha="left", fontsize=7.5, color="#666666")


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _save(figure: Figure, file: Path) -> None:
    """Write the picture. Raises InvalidOption where that fails."""
    try:
        figure.savefig(file, dpi=_DPI)
    except OSError as error:
        raise InvalidOption(f"--plot: cannot write {file}: {error.strerror}") from None

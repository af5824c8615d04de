"""The verb `bench peers`: ours and others side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobsched.amount import many
from jobsched.cli.bench_report import OutOption, check_out, figure
from jobsched.cli.options import JsonOption
from jobsched.cli.output import print_json, say
from jobsched.cli.progress import Progress
from jobsched.cli.table import print_table
from jobsched.errors import InvalidOption

__all__ = ["peers"]

_FLUSHES = ("always", "everysec", "no")
_OURS = "jobsched"
_FIGURES = {
    "jobs_per_s": "drain/s",
    "cpu_us": "cpu_us",
    "enqueue_jobs_per_s": "single/s",
    "bulk_jobs_per_s": "bulk/s",
    "p50_ms": "p50_ms",
    "p99_ms": "p99_ms",
}


def peers(
    *,
    jobs: Annotated[
        int,
        typer.Option(min=200, max=1_000_000, help="How many jobs; slow ones get fewer.", show_default=True),
    ] = 20_000,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Jobs a second for the latency.", show_default=True)
    ] = 20,
    pings: Annotated[int, typer.Option(min=10, help="Jobs for the latency.", show_default=True)] = 100,
    peer: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one, say celery; repeatable.")
    ] = None,
    appendfsync: Annotated[
        str, typer.Option(metavar="WHEN", help="Redis flushes its log always, everysec or no.")
    ] = "everysec",
    runs: Annotated[int, typer.Option(min=1, help="How often.", show_default=True)] = 3,
    note: Annotated[str, typer.Option(hidden=True, help="A word on the circumstances.")] = "",
    out: OutOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw bars.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare with Celery, Dramatiq, RQ, Huey, Procrastinate.

    The same jobs, which do nothing but note their start, with two workers and each library's best sane
    settings. Single and bulk: how fast they are enqueued, one blocking call at a time, and many in a
    call where there is such a call. Drain: from when both workers are ready, and the processor time for
    a job in all processes. p50, p99: from the call to the start, on idle workers. A redis-server or
    PostgreSQL is started for it on loopback, and ended, if it is on the PATH. What is missing is
    skipped and named.

    Examples:
      pip install 'jobsched[peers,plot]'
      jobsched bench peers
      jobsched bench peers --peer huey --peer rq --runs 1
      jobsched bench peers --appendfsync always --out peers.json --plot peers.png

    """
    from jobsched.bench.peers.report import compare  # noqa: PLC0415 (only this verb needs it)
    from jobsched.bench.plot import plot_peers, require_matplotlib  # noqa: PLC0415
    from jobsched.bench.report import write_report  # noqa: PLC0415

    check_out(out)
    if appendfsync not in _FLUSHES:
        raise InvalidOption(f"--appendfsync: expected {', '.join(_FLUSHES)}, got {appendfsync!r}")
    if plot is not None:
        require_matplotlib(plot)
    settings = {"jobs": jobs, "rate": rate, "pings": pings, "appendfsync": appendfsync}
    with Progress(doing="measuring", quiet=json_output) as progress:
        report = compare(peer or (), settings, runs=runs, tell=progress)
    if note:
        report = {"note": note, **report}
    if out is not None:
        write_report(report, out)
    if plot is not None:
        plot_peers(report, plot)
    if json_output:
        print_json({**report["median"][_OURS], **report})
    else:
        _print(report)


def _print(report: Mapping[str, Any]) -> None:
    """Print a line for each, how often ours is as fast, how far the runs are apart, who was left out."""
    median = dict(sorted(report["median"].items(), key=lambda item: -item[1]["jobs_per_s"]))
    _print_medians(median)
    times = len(report["runs"])
    if times > 1:
        say("")
        _print_spread({name: report["spread"][name] for name in median})
    here, flush = report["machine"], report["settings"]["appendfsync"]
    say("")
    say("drain x, single x: how many times as fast ours is; cpu_us: processor time for a drained job")
    for name, about in report["peers"].items():
        say(f"{name} {about['version']}: {about['settings']}")
    for name, why in report["skipped"].items():
        say(f"{name}: skipped: {why}")
    say(f"{many(times, 'run')}; redis appendfsync {flush}; {here['cores']} cores, {here['cpu']}")
    say(f"{here['file_system']}, Python {here['python']}, load {here['load_average']:.1f} before")


def _print_medians(median: Mapping[str, Any]) -> None:
    ours = median[_OURS]
    columns = [*_FIGURES.values(), "drain x", "single x"]
    rows = [
        [
            name,
            *(figure(row[key]) if key in row else "-" for key in _FIGURES),
            *(f"{ours[key] / row[key]:.2g}" for key in ("jobs_per_s", "enqueue_jobs_per_s")),
        ]
        for name, row in median.items()
    ]
    print_table(["median", *columns], rows, right=columns, elastic=["median"])


def _print_spread(spread: Mapping[str, Any]) -> None:
    keys = [key for key in _FIGURES if key not in ("cpu_us", "bulk_jobs_per_s")]  # so it fits 80 columns
    columns = [_FIGURES[key] for key in keys]
    rows = [[name, *("-".join(map(figure, row[key])) for key in keys)] for name, row in spread.items()]
    print_table(["min-max", *columns], rows, right=columns, elastic=["min-max"])

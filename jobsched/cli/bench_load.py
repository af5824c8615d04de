"""The verb `bench load`: a generated load on a node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobsched.cli.bench_report import OutOption, check_out, print_report
from jobsched.cli.options import ConfigOption, JsonOption, configuration, duration
from jobsched.cli.output import print_json, say
from jobsched.cli.table import print_table
from jobsched.errors import InvalidOption

if TYPE_CHECKING:
    from jobsched.bench.load import Load

__all__ = ["load"]

_MOST_JOBS = 1_000_000
_COLUMNS = ("dispatched", "refused", "completed", "failed", "unended", "p50_ms", "p95_ms", "p99_ms", "max_ms")
_RARE = ("refused", "failed", "unended")


def load(
    *,
    arrival: Annotated[
        str, typer.Option(metavar="PROCESS", help="constant, poisson, burst:50 or step:10s=200,20s=50.")
    ] = "poisson",
    rate: Annotated[float, typer.Option(min=0.001, help="Jobs a second.", show_default=True)] = 100.0,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="10s", help="How long; 10s unless --jobs or --trace say.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=_MOST_JOBS, help="At most so many jobs.")] = None,
    mix: Annotated[
        str | None, typer.Option("--mix", metavar="mail=3,reports=1", help="Categories and their weights.")
    ] = None,
    time: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="How long jobs run: exponential:5ms, or mail=5ms; repeatable."),
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(metavar="SHARE", help="How many fail: 2%, or mail=2% for a category; repeatable."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play a recorded load: JSON lines or CSV.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same jobs.", show_default=True)] = 1,
    running: Annotated[
        bool, typer.Option("--running", help="Use the node that runs on the configuration.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers of our own node.")] = None,
    wait: Annotated[str, typer.Option(metavar="60s", help="How long to wait for the last jobs.")] = "60s",
    runs: Annotated[int, typer.Option(min=1, help="How often.", show_default=True)] = 1,
    out: OutOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw queues and workers over time.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put a load on a node, and see what it makes of it.

    Jobs are dispatched when they are due, however the ones before them are doing; waits count from
    then to the job's start. The node is one of our own, on an empty store, with the categories and the
    workers of the configuration given with -c, if one is; with --running it is the one that runs there
    (which must have jobsched.bench.tasks among its tasks). Ctrl-C leaves nothing of the load behind.

    PROCESS: constant; poisson; burst:50 (so many at once); step:10s=200,20s=50 (from then on so many a
    second). TIME: 5ms; uniform:1ms,20ms; exponential:5ms (mean); lognormal:5ms,1.2 (median and sigma).
    A trace has a line for each job: seconds, category, and perhaps its duration.

    Examples:
      jobsched bench load --rate 200 --for 30s --plot load.png
      jobsched bench load --arrival step:5s=400,10s=50 --mix mail=3,reports=1
      jobsched bench load --time 2ms --time big=uniform:5ms,50ms --arrival burst:9
      jobsched bench load --trace monday.csv --workers 8 --json
      jobsched -c shop/categories.toml bench load --running --rate 20 --fail 2%

    """
    check_out(out)
    from jobsched.bench.load import Load  # noqa: PLC0415 (only this verb needs all of them)
    from jobsched.bench.load_ground import OWN_WORKERS  # noqa: PLC0415
    from jobsched.bench.load_wanted import Wanted, plan_of, settings_of, span_of  # noqa: PLC0415
    from jobsched.bench.plot import plot_load, require_matplotlib  # noqa: PLC0415
    from jobsched.bench.report import measure, write_report  # noqa: PLC0415

    settings = configuration(config) if config or running else None
    if workers is not None and running:
        raise InvalidOption("--workers is for a node of our own: leave out --running or --workers")
    wanted = Wanted(
        arrival=arrival, rate=rate, for_s=duration("--for", for_), jobs=jobs, mix=mix,
        time=tuple(time or ()), fail=tuple(fail or ()), trace=trace, seed=seed,
    )  # fmt: skip
    plan = plan_of(wanted, settings)
    work = Load(
        plan=plan, span_s=span_of(wanted, plan), config=settings, is_running=running, workers=workers,
        settle_s=duration("--wait", wait) or 0.0,
    )  # fmt: skip
    if plot is not None:
        require_matplotlib(plot)
    budget = workers or (settings.workers if settings else OWN_WORKERS)
    asked = {**settings_of(wanted), "running": running, "workers": budget}
    report = measure("load", lambda _: _run(work), asked, runs=runs)
    if out is not None:
        write_report(report, out)
    if plot is not None:
        plot_load(report, plot)
    if json_output:
        print_json({**report["median"], **report})
    elif runs > 1:
        print_report(report)
    else:
        _print(report["median"])


def _run(work: Load) -> dict[str, Any]:
    """Run the load once, and show how far it is."""
    from jobsched.bench.load import run_load  # noqa: PLC0415 (only this verb needs it)
    from jobsched.cli.bench_load_view import view_for  # noqa: PLC0415

    names = list(dict.fromkeys(job.category for job in work.plan))
    title = f"load on {'the running node' if work.is_running else 'a node of our own'}"
    with view_for(title, names, len(work.plan), work.span_s) as view:
        return run_load(work, view.show)


def _print(figures: Mapping[str, Any]) -> None:
    """Print the figures: the categories, then what goes for all of them."""
    rows = list(figures["categories"].items())
    rows += [("total", figures)] if len(rows) > 1 else []
    columns = [name for name in _COLUMNS if name not in _RARE or figures[name]]
    print_table(
        ["category", *columns],
        [[name, *(_number(row.get(column)) for column in columns)] for name, row in rows],
        right=columns,
        elastic=["category"],
    )
    for kind, count in figures["refused_as"].items():
        say(f"refused as {kind}: {count:,}")
    say(f"accepted {figures['rate_reached']:,.1f} jobs/s of {figures['rate_wanted']:,.1f} wanted")
    if "ack_p50_ms" in figures:
        say(
            f"dispatch answered in p50 {figures['ack_p50_ms']:.1f} ms, p99 {figures['ack_p99_ms']:.1f} ms;"
            f" the generator was late by p99 {figures['late_p99_ms']:.1f} ms"
        )
    if figures["unended"]:
        say(f"{figures['unended']:,.0f} jobs had not ended when --wait was over")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"

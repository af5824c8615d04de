"""The verbs that show and measure: demo, bench drain, bench latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from jobsched.cli.options import ConfigOption, JsonOption, add_verb
from jobsched.cli.output import console, print_json
from jobsched.cli.table import print_table

__all__ = ["bench", "demo"]

bench = typer.Typer(help="Measure this machine.", rich_markup_mode=None)


def demo(
    *,
    config: ConfigOption = None,
    json_output: JsonOption = False,
    files: Annotated[int | None, typer.Option(min=1, hidden=True, help="Use this many files.")] = None,
) -> None:
    """Run a small workload and watch the balancer move workers to it.

    Examples:
      jobsched demo
      jobsched demo --json

    """
    from jobsched.demo import run_demo  # noqa: PLC0415 (only this verb needs it)

    code = run_demo(config, json_output=json_output, console=console(), files=files)
    if code:
        raise typer.Exit(code)


def drain(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs.", show_default=True)] = 20_000,
    workers: Annotated[int, typer.Option(min=1, help="How many workers.", show_default=True)] = 2,
    json_output: JsonOption = False,
) -> None:
    """Measure how fast workers empty a queue of short jobs.

    Examples:
      jobsched bench drain
      jobsched bench drain --jobs 100000 --workers 8 --json

    """
    from jobsched.bench import run_drain  # noqa: PLC0415 (only this verb needs it)

    _print_figures(run_drain(jobs, workers), json_output=json_output)


def latency(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs.", show_default=True)] = 200,
    rate: Annotated[float, typer.Option(min=0.1, help="How many a second.", show_default=True)] = 20,
    json_output: JsonOption = False,
) -> None:
    """Measure the time from a dispatch to the start of its job.

    Examples:
      jobsched bench latency
      jobsched bench latency --jobs 1000 --rate 100 --json

    """
    from jobsched.bench import run_latency  # noqa: PLC0415 (only this verb needs it)

    _print_figures(run_latency(jobs, rate), json_output=json_output)


for _verb in (drain, latency):
    add_verb(bench, _verb)


def _print_figures(figures: Mapping[str, Any], *, json_output: bool) -> None:
    if json_output:
        print_json(figures)
        return
    rows = [
        [
            name,
            f"{value:,.2f}"
            if isinstance(value, float)
            else f"{value:,}"
            if isinstance(value, int)
            else value,
        ]
        for name, value in figures.items()
    ]
    print_table(["figure", "value"], rows, right=["value"])

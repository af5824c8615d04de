"""The verbs that show and measure: demo, and bench with its scenarios."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from jobsched.cli.bench_load import load
from jobsched.cli.bench_peers import peers
from jobsched.cli.bench_report import OutOption, RunsOption, WorkersOption, counts, present
from jobsched.cli.options import ConfigOption, JsonOption, add_verb, duration
from jobsched.cli.output import console

__all__ = ["bench", "demo"]

JobsOption = Annotated[int, typer.Option(min=1, help="How many jobs.", show_default=True)]

bench = typer.Typer(help="Measure this machine.", rich_markup_mode=None, add_completion=False)


@bench.callback()
def _before_the_scenario(
    *,
    config: ConfigOption = None,  # noqa: ARG001 (the verbs inherit it)
) -> None:
    """Measure this machine."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it cleans up as after Ctrl-C


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


def floor(
    *,
    jobs: JobsOption = 20_000,
    workers: WorkersOption = 2,
    batch: Annotated[
        int, typer.Option(min=1, max=10_000, help="Jobs that a worker holds.", show_default=True)
    ] = 256,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure what no scheduler could avoid.

    The same rows in LMDB, flushed to disk, and the same frames to processes that answer each job, with
    nothing in between.

    Examples:
      jobsched bench floor
      jobsched bench floor --batch 1000 --json

    """
    from jobsched.bench.floor import run_floor  # noqa: PLC0415 (only this verb needs it)

    settings = {"jobs": jobs, "workers": workers, "batch": batch}
    present("floor", run_floor, settings, runs=runs, json_output=json_output, out=out)


def drain(
    *,
    jobs: JobsOption = 20_000,
    workers: WorkersOption = 2,
    sleep: Annotated[str | None, typer.Option(metavar="TIME", help="Have each job sleep, say 10ms.")] = None,
    with_floor: Annotated[bool, typer.Option("--floor", help="Measure the floor beside it.")] = False,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure how fast workers empty a queue.

    Its jobs do nothing, or sleep: then it also says which share of the workers' time is lost between
    two of them.

    Examples:
      jobsched bench drain --floor
      jobsched bench drain --jobs 200000 --workers 8 --json
      jobsched bench drain --jobs 1000 --sleep 10ms

    """
    from jobsched.bench.drain import run_drain  # noqa: PLC0415 (only this verb needs it)

    settings = {
        "jobs": jobs, "workers": workers, "sleep_s": duration("--sleep", sleep) or 0.0, "floor": with_floor,
    }  # fmt: skip
    present("drain", run_drain, settings, runs=runs, json_output=json_output, out=out)


def latency(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs.", show_default=True)] = 200,
    rate: Annotated[float, typer.Option(min=0.1, help="How many a second.", show_default=True)] = 20,
    workers: WorkersOption = 2,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure the time from a dispatch to the start of its job.

    On a node that has nothing else to do. Beside it, in turn: what a bare commit of LMDB takes here,
    and a call by Python's ProcessPoolExecutor, which writes nothing down.

    Examples:
      jobsched bench latency
      jobsched bench latency --jobs 1000 --rate 100 --json

    """
    from jobsched.bench.latency import run_latency  # noqa: PLC0415 (only this verb needs it)

    settings = {"jobs": jobs, "rate": rate, "workers": workers}
    present("latency", run_latency, settings, runs=runs, json_output=json_output, out=out)


def enqueue(
    *,
    jobs: Annotated[
        int, typer.Option(min=1, help="Jobs for each number of clients.", show_default=True)
    ] = 10_000,
    clients: Annotated[
        str, typer.Option(metavar="N,N", help="How many clients.", show_default=True)
    ] = "1,4,16",
    bulk: Annotated[int, typer.Option(min=1, help="Jobs in calls of 10,000.", show_default=True)] = 50_000,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure how fast jobs get onto the disk.

    A node takes them while none runs: from clients that dispatch one at a time, 1, 4 and 16 of them,
    then in bulk. Each call returns when its jobs are on disk.

    Examples:
      jobsched bench enqueue
      jobsched bench enqueue --clients 1,64 --jobs 50000 --json

    """
    from jobsched.bench.enqueue import run_enqueue  # noqa: PLC0415 (only this verb needs it)

    settings = {"jobs": jobs, "clients": counts("--clients", clients), "bulk": bulk}
    present("enqueue", run_enqueue, settings, runs=runs, json_output=json_output, out=out)


def urgent(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="How many urgent jobs.", show_default=True)] = 200,
    rate: Annotated[float, typer.Option(min=0.1, help="How many of them a second.", show_default=True)] = 20,
    bulk: Annotated[int, typer.Option(min=1, help="How many other jobs wait.", show_default=True)] = 20_000,
    sleep: Annotated[
        str, typer.Option(metavar="TIME", help="How long those run.", show_default=True)
    ] = "5ms",
    workers: WorkersOption = 4,
    reserve: Annotated[int, typer.Option(min=0, help="Workers kept for urgent jobs.", show_default=True)] = 0,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure how long urgent jobs wait beside a long queue.

    The others keep all workers busy; it also says how much of the workers' time they still get.

    Examples:
      jobsched bench urgent
      jobsched bench urgent --workers 8 --reserve 1 --rate 100 --json

    """
    from jobsched.bench.urgent import run_urgent  # noqa: PLC0415 (only this verb needs it)

    settings = {
        "jobs": jobs, "rate": rate, "bulk": bulk, "sleep_s": duration("--sleep", sleep), "workers": workers,
        "reserve": reserve,
    }  # fmt: skip
    present("urgent", run_urgent, settings, runs=runs, json_output=json_output, out=out)


def rebalance(
    *,
    workers: WorkersOption = 10,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="How often the balancer looks.", show_default=True)
    ] = "1s",
    ratio: Annotated[
        int, typer.Option(min=2, help="Jobs in one category to one in the other.", show_default=True)
    ] = 4,
    sleep: Annotated[
        str, typer.Option(metavar="TIME", help="How long a job runs.", show_default=True)
    ] = "20ms",
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure how soon the workers follow a step in the load.

    That is, until 90 % of them are where they belong; and what moving one costs.

    Examples:
      jobsched bench rebalance
      jobsched bench rebalance --workers 20 --every 200ms --json

    """
    from jobsched.bench.rebalance import run_rebalance  # noqa: PLC0415 (only this verb needs it)

    settings = {
        "workers": workers, "every_s": duration("--every", every), "ratio": ratio,
        "sleep_s": duration("--sleep", sleep),
    }  # fmt: skip
    present("rebalance", run_rebalance, settings, runs=runs, json_output=json_output, out=out)


def scale(
    *,
    sizes: Annotated[
        str, typer.Option(metavar="N,N", help="How many jobs are queued.", show_default=True)
    ] = "10000,100000,1000000",
    drained: Annotated[
        int, typer.Option(min=1, help="How many of them are run.", show_default=True)
    ] = 10_000,
    workers: WorkersOption = 2,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure what a long queue does to a node.

    Whether it makes it slow to start, large, or slow at its work. Queueing a million jobs takes a
    minute or two, and half a gigabyte of disk.

    Examples:
      jobsched bench scale
      jobsched bench scale --sizes 10000,100000 --json

    """
    from jobsched.bench.scale import run_scale  # noqa: PLC0415 (only this verb needs it)

    settings = {"sizes": counts("--sizes", sizes), "drained": drained, "workers": workers}
    present("scale", run_scale, settings, runs=runs, json_output=json_output, out=out)


for _verb in (enqueue, drain, latency, urgent, rebalance, scale, floor, load, peers):
    add_verb(bench, _verb)

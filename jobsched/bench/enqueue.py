"""`bench enqueue`: how fast jobs get onto the disk, while none of them runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

import lmdb

from jobsched.bench.drain import queue_jobs
from jobsched.bench.enqueue_client import Client
from jobsched.bench.floor import fill_floor
from jobsched.bench.floor_store import FloorStore, commit_ms
from jobsched.bench.ground import ground, node, reading, state_count, wait_ready
from jobsched.bench.report import Tell, silent, waits
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError
from jobsched.job import State

__all__ = ["run_enqueue"]

_COMMITS = 100


def run_enqueue(
    jobs: int = 10_000, clients: Sequence[int] = (1, 4, 16), bulk: int = 50_000, *, tell: Tell = silent
) -> dict[str, object]:
    """Dispatch to a node whose category is paused: `jobs` in all by each number of clients, which are
    processes that dispatch one job at a time; then `bulk` jobs by one client, 10,000 a call.

    Returns for each number of clients, as `clients_4`, the `jobs_per_s` and the `p50_ms` to `max_ms`
    of a call; `bulk_jobs_per_s`; and as `floor` what goes without a scheduler: `commits_per_s` and
    `commit_p50_ms` of bare commits, one after another, before, between and after the clients; and
    `bulk_jobs_per_s` of bare rows.
    """
    figures: dict[str, object] = {}
    commits: list[float] = []
    with ground(1) as config:
        with ExitStack() as stack:
            dispatcher = Dispatcher(config)
            stack.callback(dispatcher.close)
            env = stack.enter_context(lmdb.open(str(config.directory / "bare"), lib_version=0))
            stack.enter_context(node(config))
            wait_ready(dispatcher)
            dispatcher.pause("bench")
            for count in clients:
                tell(f"jobs by {count} clients", 0, jobs)
                commits += [commit_ms(env, number) for number in range(_COMMITS)]
                figures[f"clients_{count}"] = _by_clients(config, jobs, count)
            commits += [commit_ms(env, number) for number in range(_COMMITS)]
            tell("jobs in bulk", 0, bulk)
            began = time.perf_counter()
            queue_jobs(config, bulk)
            figures["bulk_jobs_per_s"] = round(bulk / (time.perf_counter() - began))
        _check(config, len(clients) * jobs + bulk)
        figures["floor"] = {
            "commits_per_s": round(1000 * len(commits) / sum(commits)),
            "commit_p50_ms": waits(commits)["p50_ms"],
            "bulk_jobs_per_s": _bulk_floor(config, bulk),
        }
    return figures


def _by_clients(config: Config, jobs: int, count: int) -> dict[str, float]:
    """Return the rate of several clients at once, from the first one's start to the last one's end."""
    with ExitStack() as stack:
        shares = [jobs // count + (place < jobs % count) for place in range(count)]
        crew = [stack.enter_context(Client(config, share)) for share in shares]
        for client in crew:
            client.await_ready()
        for client in crew:
            client.start()
        ends = [client.times() for client in crew]
    began = min(begun for begun, _ in ends)
    ended = max(begun + sum(calls) for begun, calls in ends)
    calls = [seconds * 1000 for _, share in ends for seconds in share]
    return {"jobs_per_s": round(jobs / (ended - began)), **waits(calls)}


def _check(config: Config, jobs: int) -> None:
    """Raise JobschedError unless all jobs are there."""
    with reading(config) as store:
        queued = state_count(store, State.PENDING)
    if queued != jobs:
        raise JobschedError(f"{queued:,} of {jobs:,} jobs are queued")


def _bulk_floor(config: Config, jobs: int) -> int:
    """Return how many jobs a second go to disk in bulk as bare rows."""
    with FloorStore(config.directory / "floor") as store:
        return round(jobs / fill_floor(store, config, jobs))

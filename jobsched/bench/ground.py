"""A store and a node of a benchmark's own, in a temporary directory."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobsched.bench.report import Tell, silent
from jobsched.config import Config, load_config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError, Unavailable
from jobsched.job import State
from jobsched.store.base import Query, StoredJob
from jobsched.store.lmdb import open_store

__all__ = [
    "Run",
    "ended_runs",
    "ended_times",
    "ground",
    "node",
    "state_count",
    "unheard_interrupts",
    "wait_for_end",
    "wait_ready",
]

_CONFIG = """\
store = "lmdb:store"
workers = {workers}
tasks = ["jobsched.bench.tasks"]

[categories.bench]
"""
_START_S = 30.0
_STEP_S = 0.02
_TELL_S = 0.5


class Run(NamedTuple):
    """One run of a job, at the worker of that number; times are UTC microseconds."""

    job: bytes
    category: str
    worker: int
    started_at: int
    ended_at: int


@contextlib.contextmanager
def ground(workers: int) -> Iterator[Config]:
    """Give a configuration whose store is empty, below the working directory: /tmp may be memory."""
    with tempfile.TemporaryDirectory(prefix=".jobsched-bench-", dir=Path.cwd()) as folder:
        file = Path(folder) / "categories.toml"
        file.write_text(_CONFIG.format(workers=workers))
        yield load_config(file)


@contextlib.contextmanager
def node(config: Config, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node as a process of its own; ask it to stop at the end of the block."""
    command = [sys.executable, "-m", "jobsched", "-c", str(config.path), "run", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            _, errors = process.communicate()
        if process.returncode:
            raise JobschedError(f"the node ended with exit code {process.returncode}:\n{errors.decode()}")


@contextlib.contextmanager
def unheard_interrupts() -> Iterator[None]:
    """Start processes in this block: a Ctrl-C is then not theirs, but this process's, which ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_ready(dispatcher: Dispatcher) -> None:
    """Wait until a first job has gone through the node. Raises Unavailable after 30 s."""
    deadline = time.monotonic() + _START_S
    job = dispatcher.dispatch("jobsched.bench.tasks:nothing", "bench")
    while job.state() != str(State.COMPLETED):
        if time.monotonic() > deadline:
            raise Unavailable(f"the node has not run a job within {_START_S:g} s")
        time.sleep(_STEP_S)


def wait_for_end(process: subprocess.Popen[bytes], config: Config, tell: Tell, jobs: int) -> None:
    """Wait until a node ends that was started with --until-idle, and tell how many jobs have completed."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TELL_S)
            return
        if tell is not silent:
            tell("jobs", state_count(config, State.COMPLETED), jobs)


def state_count(config: Config, state: State) -> int:
    """Return how many jobs are in a state."""
    store = open_store(config.store.path)
    try:
        return sum(stats[state] for stats in store.stats().values())
    finally:
        store.close()


def ended_runs(config: Config) -> list[Run]:
    """Return the last run of each completed job."""
    store = open_store(config.store.path)
    try:
        found: list[Run] = []
        query: Query | None = Query(state=State.COMPLETED, limit=200)
        while query is not None:
            page = store.find(query)
            found += [_run(job) for job in page.jobs]
            query = Query(state=State.COMPLETED, limit=200, after=page.next) if page.next else None
        return found
    finally:
        store.close()


def _run(job: StoredJob) -> Run:
    status = job.status
    return Run(job.id, status.category, status.worker, status.started_at, status.ended_at)


def ended_times(config: Config) -> dict[bytes, tuple[int, int]]:
    """Return when each completed job started and ended, in UTC microseconds."""
    return {run.job: (run.started_at, run.ended_at) for run in ended_runs(config)}

"""A store and a node of a benchmark's own, in a temporary directory."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jobsched.bench.report import Tell, silent
from jobsched.config import Config, load_config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError, Unavailable
from jobsched.job import State
from jobsched.node_connection import NodeConnection
from jobsched.store.lmdb import LmdbStore, open_store

__all__ = [
    "await_answer",
    "await_completed",
    "children_cpu_s",
    "ground",
    "node",
    "pace",
    "reading",
    "state_count",
    "unheard_interrupts",
    "wait_for_end",
    "wait_ready",
]

_CONFIG = """\
store = "lmdb:store"
workers = {workers}
tasks = ["jobsched.bench.tasks"]

"""
_BENCH = "[categories.bench]\n"
_START_S = 30.0
_STEP_S = 0.05
_KNOCK_S = 0.002
_TELL_S = 0.5
_TOLD = 4000  # characters of a node's log that an error cites


@contextlib.contextmanager
def ground(workers: int, categories: str = _BENCH) -> Iterator[Config]:
    """Give a configuration whose store is empty, below the working directory: /tmp may be memory.

    `categories` are its tables of them.
    """
    with tempfile.TemporaryDirectory(prefix=".jobsched-bench-", dir=Path.cwd()) as folder:
        file = Path(folder) / "categories.toml"
        file.write_text(_CONFIG.format(workers=workers) + categories)
        yield load_config(file)


@contextlib.contextmanager
def node(config: Config, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node as a process of its own; ask it to stop at the end of the block. It logs to a file: a
    pipe that nobody reads meanwhile would hold it up once full.
    """
    command = [sys.executable, "-m", "jobsched", "-c", str(config.path), "run", *options]
    log = config.directory / "node.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process,  # noqa: S603
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait()
        if process.returncode:
            told = log.read_text(errors="replace")[-_TOLD:]
            raise JobschedError(f"the node ended with exit code {process.returncode}:\n{told}")


def await_answer(config: Config, process: subprocess.Popen[bytes]) -> NodeConnection:
    """Wait until a node answers, and return the connection. Raises Unavailable after 30 s, or if the
    node has ended.
    """
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            connection = NodeConnection(config.store.path)
            connection.survey()
            return connection
        time.sleep(_KNOCK_S)
    raise Unavailable(f"the node has not answered within {_START_S:g} s")


@contextlib.contextmanager
def unheard_interrupts() -> Iterator[None]:
    """Start processes in this block: a Ctrl-C is then not theirs, but this process's, which ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pace(rate: float) -> Iterator[float]:
    """Yield `rate` times a second, and without a pause where that is not kept: the seconds so far."""
    began = time.monotonic()
    for number in itertools.count():
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield time.monotonic() - began


def children_cpu_s() -> float:
    """Return the processor time of all child processes that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wait_ready(dispatcher: Dispatcher) -> None:
    """Wait until a first job has gone through the node. Raises Unavailable after 30 s."""
    deadline = time.monotonic() + _START_S
    job = dispatcher.dispatch("jobsched.bench.tasks:nothing", "bench")
    while job.state() != str(State.COMPLETED):
        if time.monotonic() > deadline:
            raise Unavailable(f"the node has not run a job within {_START_S:g} s")
        time.sleep(_STEP_S)


@contextlib.contextmanager
def reading(config: Config) -> Iterator[LmdbStore]:
    """Give the store, opened once: each opening waits for the node's commits, and the node for it."""
    store = open_store(config.store.path)
    try:
        yield store
    finally:
        store.close()


def state_count(store: LmdbStore, state: State) -> int:
    """Return how many jobs are in a state."""
    return sum(stats[state] for stats in store.stats().values())


def wait_for_end(process: subprocess.Popen[bytes], config: Config, tell: Tell, jobs: int) -> None:
    """Wait until a node ends that was started with --until-idle, and tell how many jobs have completed."""
    if tell is silent:
        process.wait()
        return
    with reading(config) as store:
        while process.poll() is None:
            tell("jobs", state_count(store, State.COMPLETED), jobs)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TELL_S)


def await_completed(
    config: Config,
    count: int,
    tell: Tell = silent,
    within_s: float = _START_S,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Wait until so many jobs have completed. Raises JobschedError if they have not in time."""
    deadline = time.monotonic() + within_s
    with reading(config) as store:
        while (completed := state_count(store, State.COMPLETED)) < count:
            tell("jobs", completed, count)
            meanwhile()
            if time.monotonic() > deadline:
                raise JobschedError(f"{completed:,} of {count:,} jobs have completed within {within_s:g} s")
            time.sleep(_STEP_S)

"""Where a generated load goes: a node of its own on an empty store, or the one that runs already."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobsched.bench.tasks import nothing
from jobsched.config import Config, load_config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import InvalidOption, JobschedError, Unavailable, UnknownTask
from jobsched.linux import die_with_parent
from jobsched.node_connection import NodeConnection

__all__ = ["OWN_WORKERS", "TASKS", "own_node", "running_node", "write_toml"]

TASKS = "jobsched.bench.tasks"
"""The module that a node must have among its tasks to take part."""

OWN_WORKERS = 2
"""Workers of a node of our own, unless somebody says otherwise."""

_KEPT = ("workers", "grace", "quota", "balancer", "retention", "pressure", "categories")
_START_S = 30.0
_STEP_S = 0.02
_TOLD_BYTES = 2000


@contextlib.contextmanager
def running_node(config: Config, category: str) -> Iterator[Config]:
    """Give the configuration of a node that runs and knows the benchmarks' tasks.

    Raises InvalidOption when none runs, or it does not know them.
    """
    try:
        NodeConnection(config.store.path).close()
    except (OSError, JobschedError) as error:
        raise InvalidOption(
            f"no node answers on {config.store.path}: start it with `jobsched -c {config.path} run`,"
            " or leave out --running"
        ) from error
    try:
        _run_one(config, category)
    except UnknownTask as error:
        raise InvalidOption(
            f'the node on {config.store.path} does not know the load\'s task: add "{TASKS}" to tasks in'
            f" {config.path}, and start it again"
        ) from error
    yield config


@contextlib.contextmanager
def own_node(given: Config | None, categories: Collection[str], workers: int | None) -> Iterator[Config]:
    """Run a node on an empty store below the working directory (/tmp may be memory), and end it.

    It has the settings of the given configuration, or else the named categories.
    """
    with tempfile.TemporaryDirectory(prefix=".jobsched-bench-", dir=Path.cwd()) as folder:
        file = Path(folder) / "categories.toml"
        file.write_text(write_toml(_document(given, categories, workers)))
        config = load_config(file)
        with _node(config):
            _run_one(config, next(iter(categories)))
            yield config


def _document(given: Config | None, categories: Collection[str], workers: int | None) -> dict[str, Any]:
    """Return the own node's categories.toml, as TOML is read."""
    if given is None or given.path is None:
        settings: dict[str, Any] = {"workers": OWN_WORKERS, "categories": {name: {} for name in categories}}
    else:
        found = tomllib.loads(given.path.read_text(encoding="utf-8-sig"))
        settings = {key: value for key, value in found.items() if key in _KEPT}
    settings |= {"store": "lmdb:store", "tasks": [TASKS]}
    return settings | ({} if workers is None else {"workers": workers})


def write_toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """Return a table of plain values and of tables as TOML."""
    lines = [f"[{'.'.join(map(json.dumps, path))}]"] if path else []
    lines += [
        f"{json.dumps(key)} = {json.dumps(value)}"
        for key, value in table.items()
        if not isinstance(value, Mapping)
    ]
    tables = [write_toml(value, (*path, key)) for key, value in table.items() if isinstance(value, Mapping)]
    return "\n".join([*lines, *tables]) + "\n"


@contextlib.contextmanager
def _node(config: Config) -> Iterator[None]:
    """Run a node; ask it to stop at the end of the block. Its log goes to a file: a load may fail jobs
    by the thousand, and each is a line.
    """
    log = config.directory / "node.log"
    command = [sys.executable, "-m", "jobsched", "-c", str(config.path), "run", "--grace", "1s"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 (no threads yet)
        ) as process,
    ):
        try:
            yield
        except JobschedError as error:
            if process.poll() is not None:
                told = log.read_text(errors="replace")[-_TOLD_BYTES:]
                raise JobschedError(f"the node ended with exit code {process.returncode}:\n{told}") from error
            raise
        finally:
            process.terminate()


def _run_one(config: Config, category: str) -> None:
    """Wait until a first job has gone through the node. Raises Unavailable after 30 s."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            NodeConnection(config.store.path).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise Unavailable(f"no node answers on {config.store.path} after {_START_S:g} s") from None
            time.sleep(_STEP_S)
    with contextlib.closing(Dispatcher(config)) as dispatcher:
        job = dispatcher.dispatch(nothing, category)
        job.result(_START_S)

"""The demo from start to end: find the files, run a node on them, check, and tell."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from jobsched.clock import MICROSECONDS
from jobsched.config import Config, StorePlace, load_config
from jobsched.demo.check import check
from jobsched.demo.files import find_files, library
from jobsched.demo.results import Ended, figures, read_jobs
from jobsched.demo.summary import Failure, Summary, as_json, print_summary
from jobsched.demo.view import View, view_for
from jobsched.demo.waves import TASKS, Feeder, waves
from jobsched.errors import ConfigError
from jobsched.job import State
from jobsched.node import Node
from jobsched.report import Decision, NodeReport
from jobsched.store.base import KEPT_DECISIONS, JobStore
from jobsched.store.lmdb import open_store

__all__ = ["CATEGORIES", "bundled_config", "demo_config", "run"]

CATEGORIES = tuple(str(task.category) for task in TASKS)

_GOOD, _WRONG, _INTERRUPTED = 0, 1, 130


def run(config: Path | None, *, json_output: bool, limit: int | None, console: Console | None) -> int:
    """Run the demo; return its exit code. See `jobsched.demo.run_demo`."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    settings = load_config(config or bundled_config())
    with tempfile.TemporaryDirectory(prefix="jobsched-demo-") as name:
        folder = Path(name)
        settings = demo_config(settings, folder)
        files = find_files(folder, limit)
        title = f"jobsched demo: {len(files):,} files of Python {platform.python_version()}"
        view = view_for(console, CATEGORIES, title, json_output=json_output)
        ran = _run_jobs(settings, files, view)
        if ran is None:
            sys.stderr.write("interrupted: nothing of the demo is kept\n")
            return _INTERRUPTED
        if not json_output:
            console.print("\nchecking every result against the files ...")
        summary = _summarize(settings, files, ran)
    if json_output:
        sys.stdout.write(json.dumps(as_json(summary), indent=2) + "\n")
    else:
        print_summary(summary, console)
    return _GOOD if summary.check.is_good else _WRONG


def bundled_config() -> Path:
    """Return the configuration that comes with the package; in a checkout it lies at its top."""
    bundled = Path(__file__).with_name("categories.toml")
    return bundled if bundled.exists() else Path(__file__).parents[2] / "categories.toml"


def demo_config(config: Config, folder: Path) -> Config:
    """Return a configuration as the demo uses it: its own tasks, and a store in `folder`.

    Raises ConfigError when one of the demo's categories is missing.
    """
    missing = [name for name in CATEGORIES if name not in config.categories]
    if missing:
        raise ConfigError(
            [f"{config.path}: the demo needs a category: add [categories.{name}]" for name in missing]
        )
    store = StorePlace("lmdb", folder / "store")
    return msgspec.structs.replace(config, store=store, directory=folder, tasks=("jobsched.demo.tasks",))


class _Ran(NamedTuple):
    """What a node has left behind: its last report, the jobs, the balancer's decisions."""

    last: NodeReport
    jobs: list[Ended]
    decisions: list[Decision]


def _run_jobs(config: Config, files: Sequence[Path], view: View) -> _Ran | None:
    """Run all the jobs, and read what they left; None if it was interrupted."""
    with contextlib.closing(open_store(config.store.path)) as store:
        last = _run_node(config, store, files, view)
        if last is None:
            return None
        return _Ran(last, read_jobs(store), store.decisions(KEPT_DECISIONS))


def _run_node(config: Config, store: JobStore, files: Sequence[Path], view: View) -> NodeReport | None:
    """Run a node until all the jobs have ended; return its last report, None if interrupted."""
    last: NodeReport | None = None

    def report(latest: NodeReport) -> None:
        nonlocal last
        last = latest
        view.show(latest)

    node = Node(config, report=report)
    feeder = Feeder(config, store, waves(files), node.stop)
    feeder.start()
    try:
        with _without_failed_jobs(), view:
            node.run()
    finally:
        feeder.close()
    return last if feeder.is_done else None


@contextlib.contextmanager
def _without_failed_jobs() -> Iterator[None]:
    """Keep the warnings of failed jobs off the screen: the summary lists them."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: not record.getMessage().startswith("job="))
    logger = logging.getLogger("jobsched")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _summarize(config: Config, files: Sequence[Path], ran: _Ran) -> Summary:
    by_category = {name: [job for job in ran.jobs if job.category == name] for name in CATEGORIES}
    return Summary(
        python=platform.python_version(),
        library=str(library()),
        files=len(files),
        workers=config.workers,
        started_at=ran.last.at - int(ran.last.uptime_s * MICROSECONDS),
        elapsed_s=ran.last.uptime_s,
        categories={name: figures(group) for name, group in by_category.items()},
        moves=ran.last.moves,
        decisions=ran.decisions,
        failures=[_failure(job) for job in ran.jobs if job.state is not State.COMPLETED],
        check=check(ran.jobs, files),
    )


def _failure(job: Ended) -> Failure:
    path = Path(job.path)
    root = library() if path.is_relative_to(library()) else path.parent
    return Failure(category=job.category, file=str(path.relative_to(root)), reason=job.cause)

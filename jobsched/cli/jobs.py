"""The verbs that look at jobs: jobs, show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any

import typer

from jobsched.cli import job_view
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import STATE_STYLES, print_json, say
from jobsched.cli.reading import job_id, reading
from jobsched.cli.selection import selected
from jobsched.cli.table import print_table
from jobsched.cli.where import Where, parse_state, parse_where
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobNotFound, UnknownCategory
from jobsched.store.base import JobStore, StoredJob

__all__ = ["jobs", "show"]


def jobs(
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    category: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this category.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COND", help="Only jobs that meet conditions; repeatable."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many at most.", show_default=True)
    ] = 50,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List jobs.

    Newest first; with a state, waiting ones in the order of their queues. Conditions are on state,
    category, task, name, error, age, attempt, priority and id.

    Examples:
      jobsched jobs
      jobsched jobs --state failed --limit 10
      jobsched jobs --category mail --json
      jobsched jobs --where 'state=failed|parked, task=shop.*, age<1d'

    """
    settings = configuration(config)
    now = SystemClock().now()
    wanted = _narrowed(parse_where(where or (), now), state, category)
    with reading(settings) as store:
        _check_category(settings, store, category)
        found = list(_rows(store, wanted, limit, now)) if store else []
    if json_output:
        print_json([row for row, _ in found])
    elif found:
        _print_jobs(found)
    else:
        say("no jobs")


def show(
    *,
    job: Annotated[
        str, typer.Argument(metavar="ID", help="The job's id, or 6+ digits of its beginning or end.")
    ],
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show everything about one job.

    Examples:
      jobsched show 01936c4e-7f4b-7a3c-9f8e-2b1c5d3e4f60
      jobsched show 3e4f60 --json

    """
    settings = configuration(config)
    found = _look(settings, job)
    if json_output:
        print_json(job_view.details(found))
        return
    for what, value in job_view.lines(found, SystemClock().now()):
        say(f"{what}\n{value}" if "\n" in value or what.endswith(":") else f"{what:<13} {value}")


def _narrowed(where: Where, state: str | None, category: str | None) -> Where:
    """Return conditions with what --state and --category say beside them."""
    states = where.states if state is None else where.states & {parse_state(state)}
    if category is None:
        return replace(where, states=states)
    if where.category not in (None, category):
        states = frozenset()  # no job is of two categories
    return replace(where, states=states, category=category)


def _check_category(config: Config, store: JobStore | None, category: str | None) -> None:
    """Raise UnknownCategory for one that is neither configured nor holds jobs."""
    if category is None or category in config.categories:
        return
    known = {*config.categories, *(store.stats() if store else ())}
    if category not in known:
        raise UnknownCategory(category, known)


def _rows(store: JobStore, where: Where, limit: int, now: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what the list says of the first jobs that match, their results and payloads dropped."""
    found = (job for page in selected(store, where) for job in page)
    for job in islice(found, limit):
        yield job_view.summary(job), job_view.when(job, now)


def _print_jobs(found: list[tuple[dict[str, Any], str]]) -> None:
    print_table(
        ["id", "task", "category", "state", "try", "age/due"],
        [
            [row["id"], row["task"] or "?", row["category"] or "?", row["state"], str(row["attempt"]), since]
            for row, since in found
        ],
        right=["try", "age/due"],
        elastic=["task", "category"],
        styles={str(state): style for state, style in STATE_STYLES.items()},
    )


def _look(config: Config, text: str) -> StoredJob:
    """Return the job that a text stands for. A memory: store is asked through its node."""
    wanted = job_id(config, text)
    if config.store.kind == "memory":
        with contextlib.closing(Dispatcher(config)) as dispatcher:
            found = dispatcher.look(wanted)
    else:
        with reading(config) as store:
            found = store.get(wanted) if store else None
    if found is None:
        raise JobNotFound(text)
    return found

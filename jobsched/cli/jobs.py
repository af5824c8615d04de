"""The verbs on jobs that were dispatched: jobs, show, cancel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from jobsched.cli import job_view
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import STATE_STYLES, print_json, say
from jobsched.cli.reading import job_id, reading
from jobsched.cli.table import print_table
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import InvalidOption, JobNotFound, UnknownCategory, nearest
from jobsched.job import State, format_id
from jobsched.store.base import JobStore, Query, StoredJob

__all__ = ["cancel", "jobs", "show"]

_PAGE = 200


def jobs(
    *,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Only jobs in this state.")] = None,
    category: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this category.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many at most.", show_default=True)
    ] = 50,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List jobs.

    Newest first; with --state, waiting ones in the order of their queues.

    Examples:
      jobsched jobs
      jobsched jobs --state failed --limit 10
      jobsched jobs --category mail --json

    """
    settings = configuration(config)
    query = Query(state=_state(state), category=category, limit=_PAGE)
    now = SystemClock().now()
    with reading(settings) as store:
        _check_category(settings, store, category)
        found = list(_rows(store, query, limit, now)) if store else []
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
        say(f"{what:<13} {value}" if "\n" not in value else f"{what}\n{value}")


def cancel(
    *,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids, or 6+ digits of each.")],
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Cancel jobs that have not started. Prints the state that each has now.

    Exit code 1 if one of them could not be cancelled.

    Examples:
      jobsched cancel 3e4f60
      jobsched cancel 3e4f60 81ab02 --json

    """
    settings = configuration(config)
    wanted = [format_id(job_id(settings, text)) for text in ids]
    with contextlib.closing(Dispatcher(settings)) as dispatcher:
        states = dispatcher.cancel(wanted)
    if json_output:
        print_json(
            [{"id": job, "state": state and str(state)} for job, state in zip(wanted, states, strict=True)]
        )
    else:
        for job, state in zip(wanted, states, strict=True):
            say(f"{job}  {'not found' if state is None else state}")
    if any(state is not State.CANCELLED for state in states):
        raise typer.Exit(1)


def _state(text: str | None) -> State | None:
    """Return the state of a name, as people may write it."""
    if text is None:
        return None
    name = text.strip().lower().replace("-", "_").replace(" ", "_")
    known = {str(state): state for state in State}
    if name not in known:
        raise InvalidOption(f"unknown state {text!r}{nearest(name, known)}")
    return known[name]


def _check_category(config: Config, store: JobStore | None, category: str | None) -> None:
    """Raise UnknownCategory for one that is neither configured nor holds jobs."""
    if category is None or category in config.categories:
        return
    known = {*config.categories, *(store.stats() if store else ())}
    if category not in known:
        raise UnknownCategory(category, known)


def _rows(store: JobStore, query: Query, limit: int, now: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield jobs page by page, their results and payloads dropped."""
    count = 0
    after: bytes | None = query.after
    while after is not None and count < limit:
        page = store.find(
            Query(state=query.state, category=query.category, limit=min(_PAGE, limit - count), after=after)
        )
        for job in page.jobs:
            yield job_view.summary(job), job_view.when(job, now)
        count += len(page.jobs)
        after = page.next


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

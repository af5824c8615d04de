"""Changes of many jobs by an operator: which they are, what is sent, what is said of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from jobsched.amount import many
from jobsched.cli import job_view
from jobsched.cli.agreement import ask, is_asked
from jobsched.cli.output import clean, print_json, say
from jobsched.cli.progress import Progress
from jobsched.cli.reading import job_id, reading
from jobsched.cli.selection import selected
from jobsched.cli.where import Where, parse_where
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import InvalidOption
from jobsched.job import State
from jobsched.job_id import format_id, parse_id
from jobsched.store.base import JobStore, StoredJob

__all__ = [
    "DELETED",
    "Change",
    "Done",
    "Settings",
    "answer_named",
    "answer_where",
    "change_named",
    "change_where",
    "conditions",
    "dispatching",
]

DELETED = "deleted"
_SENT = 2000  # ids in one request: well below 10,000, so that a node's other clients do not wait
_SHOWN = 10

Send = Callable[[Dispatcher, Sequence[str]], list[State | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A verb: what it is called, how it is asked for, and from and to which states it leads.

    The answer None stands for no job; `to` holds None where that is what was wanted. Jobs in a state
    of `only_named` are meant by conditions only where these speak of states.
    """

    verb: str
    done: str
    send: Send
    states: frozenset[State]
    to: frozenset[State | None]
    is_destructive: bool
    only_named: frozenset[State] = frozenset()

    def meant_by(self, where: Where) -> frozenset[State]:
        """Return the states whose jobs conditions may mean."""
        return self.states - self.only_named if where.states == frozenset(State) else self.states


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the options of such a command say."""

    config: Config
    dry_run: bool
    yes: bool
    json_output: bool


@dataclass(slots=True, kw_only=True)
class Done:
    """What became of jobs: how many there were and were changed, and the ids of those still running."""

    matched: int = 0
    changed: int = 0
    running: list[str] = field(default_factory=list)


def conditions(ids: Sequence[str] | None, where: Sequence[str] | None) -> Where | None:
    """Return the conditions of --where; None where ids are given. One of the two is needed."""
    if ids and where:
        raise InvalidOption("give ids, or --where, not both")
    if not ids and not where:
        raise InvalidOption("which jobs? give ids, or conditions like --where 'state=failed, age>1h'")
    return parse_where(where, SystemClock().now()) if where else None


def change_named(
    change: Change, settings: Settings, dispatcher: Dispatcher, texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Change the jobs that ids or parts of them name; return id, state and whether it was changed.

    Nothing is changed if a part of an id is not that of one job.
    """
    wanted = list(dict.fromkeys(job_id(settings.config, text) for text in texts))
    before = [dispatcher.look(job) for job in wanted]
    if settings.dry_run:
        return [_plan(change, job, found) for job, found in zip(wanted, before, strict=True)]
    rows: list[dict[str, Any]] = []
    for names in _portions([format_id(job) for job in wanted]):
        states = change.send(dispatcher, names)
        rows += [{"id": name, "state": state} for name, state in zip(names, states, strict=True)]
    for row, found in zip(rows, before, strict=True):
        state = row["state"]
        row["changed"] = found is not None and state in change.to
        row["state"] = DELETED if state is None and row["changed"] else state and str(state)
    return rows


def _plan(change: Change, job: bytes, found: StoredJob | None) -> dict[str, Any]:
    """Return what would be done to a job."""
    state = None if found is None else found.status.state
    return {
        "id": format_id(job),
        "state": None if state is None else str(state),
        "changed": state is not None and state in change.states,
    }


def change_where(change: Change, settings: Settings, dispatcher: Dispatcher, where: Where) -> Done:
    """Change all jobs that meet conditions; print what was done, or would be.

    At a terminal the user is asked before what cannot be undone.
    """
    if settings.dry_run:
        _print_plan(change, settings, *_count(change, settings, where))
        return Done()
    if change.is_destructive and is_asked(yes=settings.yes):
        matched, _ = _count(change, settings, where)
        if matched:
            ask(f"{change.verb} {many(matched, 'job')}?")
    done = Done()
    with (
        reading(settings.config) as store,
        Progress(quiet=settings.json_output, doing=change.done) as progress,
    ):
        for found in _portions(_ids(change, store, where)):
            done.matched += len(found)
            names = _still_meant(change, store, where, found)
            states = change.send(dispatcher, names) if names else []
            done.changed += sum(state in change.to for state in states)
            done.running += [
                name for name, state in zip(names, states, strict=True) if state is State.IN_PROGRESS
            ]
            progress("jobs", done.changed)
    return done


def _count(change: Change, settings: Settings, where: Where) -> tuple[int, list[StoredJob]]:
    """Return how many jobs meet the conditions, and the first of them."""
    count = 0
    first: list[StoredJob] = []
    with (
        reading(settings.config) as store,
        Progress(quiet=settings.json_output, doing="found") as progress,
    ):
        for page in selected(store, where, change.meant_by(where)) if store else ():
            count += len(page)
            first += page[: _SHOWN - len(first)]
            progress("jobs", count)
    return count, first


def _ids(change: Change, store: JobStore | None, where: Where) -> Iterator[str]:
    for page in selected(store, where, change.meant_by(where)) if store else ():
        yield from (format_id(job.id) for job in page)


def _still_meant(change: Change, store: JobStore | None, where: Where, names: Sequence[str]) -> Sequence[str]:
    """Leave out the jobs that do not meet the conditions any more, before what cannot be undone: to
    find as many as are sent takes long where few are meant.
    """
    if store is None or not change.is_destructive:
        return names
    states = change.meant_by(where)
    found = ((name, store.get(parse_id(name))) for name in names)
    return [name for name, job in found if job and job.status.state in states and where.matches(job)]


def _portions(names: Sequence[str] | Iterator[str]) -> Iterator[list[str]]:
    """Yield ids in portions that one request may hold.

    One is sent before the next is looked for, so few jobs can have changed their state meanwhile.
    """
    portion: list[str] = []
    for name in names:
        portion.append(name)
        if len(portion) >= _SENT:
            yield portion
            portion = []
    if portion:
        yield portion


def _print_plan(change: Change, settings: Settings, count: int, first: list[StoredJob]) -> None:
    if settings.json_output:
        jobs = [job_view.summary(job) for job in first]
        print_json({"matched": count, "changed": 0, "dry_run": True, "jobs": jobs})
        return
    say(f"would {change.verb} {many(count, 'job')}{':' if first else ''}")
    for job in first:
        row = job_view.summary(job)
        say(f"{row['id']}  {row['state']}  {clean(row['task'] or '?')}")
    if count > len(first):
        say(f"and {count - len(first):,} more")


@contextlib.contextmanager
def dispatching(config: Config) -> Iterator[Dispatcher]:
    """Give a dispatcher, closed at the end."""
    with contextlib.closing(Dispatcher(config)) as dispatcher:
        yield dispatcher


def answer_named(change: Change, settings: Settings, rows: list[dict[str, Any]]) -> None:
    """Print what became of each job; exit code 1 if one was not changed."""
    if settings.json_output:
        print_json([{key: value for key, value in row.items() if key != "changed"} for row in rows])
    else:
        for row in rows:
            say(_line(change, settings, row))
    if not all(row["changed"] for row in rows):
        raise typer.Exit(1)


def _line(change: Change, settings: Settings, row: dict[str, Any]) -> str:
    state = row["state"] or "not found"
    if settings.dry_run:
        verb = f"would {change.verb}" if row["changed"] else f"would not {change.verb}"
        return f"{row['id']}  {state}  {verb}"
    if row.get("error"):
        return f"{row['id']}  {state}  {clean(row['error'])}"
    return f"{row['id']}  {state}"


def answer_where(change: Change, settings: Settings, done: Done, ended: list[dict[str, Any]]) -> None:
    """Print how many jobs were changed, and how those ended that were waited for."""
    if settings.dry_run:
        return
    if settings.json_output:
        numbers = {"matched": done.matched, "changed": done.changed, "dry_run": False}
        print_json({**numbers, **({"ended": ended} if ended else {})})
        return
    for row in ended:
        say(_line(change, settings, row))
    unchanged = done.matched - done.changed
    more = f", {unchanged:,} had moved on or could not be" if unchanged else ""
    say(f"{change.done} {many(done.changed, 'job')}{more}")

"""The group of verbs on schedules: those that look at them, and all the others by their modules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from jobsched.cli import schedule_lines
from jobsched.cli.changes import dispatching
from jobsched.cli.options import ConfigOption, JsonOption, add_verb, configuration, duration
from jobsched.cli.output import is_terminal, print_json, say
from jobsched.cli.result import answer_with_result
from jobsched.cli.schedule_apply import apply
from jobsched.cli.schedule_change import activate, add, clear, deactivate, remove, update
from jobsched.cli.schedule_times import lint, next_times
from jobsched.cli.table import print_table
from jobsched.clock import SystemClock
from jobsched.schedule_view import FiringInfo

__all__ = ["schedule"]

schedule = typer.Typer(
    help="Add, change, look at and run schedules.", rich_markup_mode=None, add_completion=False
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]
_ID_SHOWN = 8
_WHOLE = 30  # characters of a name: up to this it is never cut


@schedule.callback()
def _group(*, config: ConfigOption = None) -> None:
    """Add, change, look at and run schedules."""


def list_schedules(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """List the schedules, in the order of their names.

    Examples:
      jobsched schedule list
      jobsched schedule list --json

    """
    with dispatching(configuration(config)) as dispatcher:
        found = dispatcher.schedules.list()
    if json_output:
        print_json([schedule_lines.schedule_object(info) for info in found])
    elif not found:
        say("no schedules")
    else:
        now = datetime.now(UTC)
        print_table(
            ["name", *schedule_lines.columns],
            [[_cut(info.name), *schedule_lines.cells(info, now)] for info in found],
            right=["next", "last"],
            elastic=["trigger", "task"],
            styles={"not active": "yellow", "ended": "dim"},
        )


def _cut(name: str) -> str:
    """Return a name that leaves room for the rest at a terminal."""
    return f"{name[: _WHOLE - 1]}…" if len(name) > _WHOLE and is_terminal() else name


def get(*, name: _Name, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Show everything about one schedule.

    Examples:
      jobsched schedule get count

    """
    with dispatching(configuration(config)) as dispatcher:
        info = dispatcher.schedules.get(name)
    if json_output:
        print_json(schedule_lines.schedule_object(info))
        return
    for what, value in schedule_lines.lines(info, SystemClock().now()):
        say(f"{what:<12} {value}")


def run_now(
    *,
    name: _Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="30s", help="Wait no longer than this.")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Dispatch the job of a schedule at once. It need not be active; its due times stay.

    Examples:
      jobsched schedule run-now count
      jobsched schedule run-now count --wait --timeout 10s

    """
    limit = duration("--timeout", timeout)
    settings = configuration(config)
    with dispatching(settings) as dispatcher:
        info = dispatcher.schedules.get(name)
        handle = dispatcher.schedules.run_now(name)
        about = {"id": handle.id, "task": info.task, "category": info.category, "schedule": name}
        if wait:
            answer_with_result(settings, handle, about, limit, json_output=json_output)
        elif json_output:
            print_json(about)
        else:
            say(handle.id)


def history(
    *,
    name: _Name,
    count: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many.", show_default=True)] = 20,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List what became of the due times of a schedule. The latest come first; 1,000 are kept of each.

    Examples:
      jobsched schedule history count
      jobsched schedule history count -n 100 --json

    """
    with dispatching(configuration(config)) as dispatcher:
        found = dispatcher.schedules.history(name, count)
    if json_output:
        print_json([_object(one) for one in found])
    elif not found:
        say("it has not been due yet")
    else:
        print_table(
            ["due", "decided", "late", "what", "job", "note"],
            [_cells(one) for one in found],
            right=["decided", "late"],
            wrapped=["note"],
            styles={"skipped": "yellow", "noted": "dim"},
        )


def _object(one: FiringInfo) -> dict[str, Any]:
    return {
        "due_at": one.due,
        "until": one.until,
        "count": one.count,
        "is_counted": one.is_counted,
        "at": one.at,
        "lateness_s": one.lateness_s,
        "kind": one.kind,
        "job": one.job_id,
        "why": one.why or None,
    }


def _cells(one: FiringInfo) -> list[str]:
    """Return a record's line. The end of a job's id is enough to name it."""
    due, decided = schedule_lines.short_time(one.due), schedule_lines.short_time(one.at)
    notes = [one.why] if one.why else []
    if one.count > 1:
        least = "" if one.is_counted else "at least "
        until = schedule_lines.short_time(one.until)
        stretch = f"{least}{one.count:,} due times up to {_unlike(until, due)}"
        notes.insert(0, stretch)
    return [
        due,
        _unlike(decided, due),
        f"{one.lateness_s:.3f} s",
        one.kind.replace("_", " "),
        (one.job_id or "")[-_ID_SHOWN:],
        "; ".join(notes),
    ]


def _unlike(time: str, other: str) -> str:
    """Return a time without its date where that is the other's."""
    return time.partition(" ")[2] if time[:10] == other[:10] else time


add_verb(schedule, add)
add_verb(schedule, update)
add_verb(schedule, remove)
add_verb(schedule, activate)
add_verb(schedule, deactivate)
add_verb(schedule, list_schedules, "list")
add_verb(schedule, get)
add_verb(schedule, clear)
add_verb(schedule, next_times, "next")
add_verb(schedule, run_now, "run-now")
add_verb(schedule, history)
add_verb(schedule, apply)
add_verb(schedule, lint)

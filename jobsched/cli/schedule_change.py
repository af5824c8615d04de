"""The verbs that add and change schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from jobsched.cli import schedule_options as options
from jobsched.cli.agreement import ask, is_asked
from jobsched.cli.changes import dispatching
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import clean, note, print_json, say
from jobsched.cli.schedule_lines import schedule_object
from jobsched.cli.schedule_options import given_arguments, given_options, given_trigger
from jobsched.cli.schedule_times import due_times, print_due_times
from jobsched.cli.task_modules import know_task
from jobsched.config import Config
from jobsched.errors import InvalidOption
from jobsched.schedule_view import ScheduleInfo
from jobsched.trigger_text import trigger_text

__all__ = ["activate", "add", "clear", "deactivate", "remove", "update"]

_SHOWN = 5

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]
_Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="The schedules.")]
_Category = Annotated[str | None, typer.Option(metavar="NAME", help="Default: the task's own.")]


def add(
    *,
    name: _Name,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task: module:function.")],
    cron: options.CronText = None,
    every: options.EveryText = None,
    at: options.At = None,
    timezone: options.Timezone = None,
    seconds: options.Seconds = False,
    category: _Category = None,
    payload: options.Payload = None,
    arg: options.Arg = None,
    start: options.Start = None,
    end: options.End = None,
    max_runs: options.MaxRuns = None,
    jitter: options.Jitter = None,
    misfire: options.Misfire = None,
    most: options.Most = None,
    grace: options.Grace = None,
    overlap: options.Overlap = None,
    priority: options.Priority = None,
    max_retries: options.MaxRetries = None,
    timeout: options.Timeout = None,
    expires_in: options.ExpiresIn = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of one of that name.")
    ] = False,
    inactive: Annotated[bool, typer.Option("--inactive", help="It fires once it is activated.")] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Add a schedule, and print its next times.

    Examples:
      jobsched schedule add count tasks:word_count --arg '"tasks.py"' --every 5m
      jobsched schedule add hello tasks:greet --arg '"Ada"' --cron '0 8 * * 1-5'
      jobsched schedule add xmas tasks:greet --arg '"all"' --at 2040-12-24T18:00Z

    """
    trigger = given_trigger(cron, every, at, timezone, seconds=seconds)
    if trigger is None:
        raise InvalidOption("when? give --cron, --every or --at")
    given = given_options(
        {
            "start": start, "end": end, "max_runs": max_runs, "jitter": jitter, "misfire": misfire,
            "most": most, "grace": grace, "overlap": overlap, "priority": priority,
            "max_retries": max_retries, "timeout": timeout, "expires_in": expires_in,
        }
    )  # fmt: skip
    settings = configuration(config)
    if category is None:
        know_task(settings, task)
    with dispatching(settings) as dispatcher:
        info = dispatcher.schedules.add(
            name, task, trigger, category, **given_arguments(payload, arg), **given,
            is_active=not inactive, replace=replace,
        )  # fmt: skip
    _answer(info, "added", json_output=json_output)


def update(
    *,
    name: _Name,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="The task: module:function.")] = None,
    cron: options.CronText = None,
    every: options.EveryText = None,
    at: options.At = None,
    timezone: options.Timezone = None,
    seconds: options.Seconds = False,
    category: Annotated[str | None, typer.Option(metavar="NAME", help="The category of its jobs.")] = None,
    payload: options.Payload = None,
    arg: options.Arg = None,
    start: options.Start = None,
    end: options.End = None,
    max_runs: options.MaxRuns = None,
    jitter: options.Jitter = None,
    misfire: options.Misfire = None,
    most: options.Most = None,
    grace: options.Grace = None,
    overlap: options.Overlap = None,
    priority: options.Priority = None,
    max_retries: options.MaxRetries = None,
    timeout: options.Timeout = None,
    expires_in: options.ExpiresIn = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Change a schedule: what is not named stays. A time or a duration of `none` is no limit any more.

    Examples:
      jobsched schedule update count --every 10m --jitter 30s
      jobsched schedule update hello --timezone America/New_York --end none

    """
    given: dict[str, Any] = {"task": task, "category": category}
    given |= {
        "start": start, "end": end, "max_runs": max_runs, "jitter": jitter, "misfire": misfire,
        "most": most, "grace": grace, "overlap": overlap, "priority": priority,
        "max_retries": max_retries, "timeout": timeout, "expires_in": expires_in,
    }  # fmt: skip
    changes = given_options(given) | given_arguments(payload, arg)
    with dispatching(configuration(config)) as dispatcher:
        before = dispatcher.schedules.get(name)
        trigger = given_trigger(cron, every, at, timezone, seconds=seconds, before=before.trigger)
        if trigger is not None:
            changes["trigger"] = trigger
        if not changes:
            raise InvalidOption("nothing to change: name what is to be another")
        info = dispatcher.schedules.update(name, **changes)
        _warn_of_files(dispatcher.config, [info], "has the last word")
    _answer(info, "changed", json_output=json_output)


def remove(*, names: _Names, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Forget schedules and their history, in one commit. Jobs that they have fired stay.

    Examples:
      jobsched schedule remove count hello

    """
    with dispatching(configuration(config)) as dispatcher:
        before = [dispatcher.schedules.get(name) for name in dict.fromkeys(names)]
        with dispatcher.batch() as batch:
            for info in before:
                batch.schedules.remove(info.name)
        _warn_of_files(dispatcher.config, before, "adds it again")
    if json_output:
        print_json([{"name": info.name, "removed": True} for info in before])
    else:
        for info in before:
            say(f"{clean(info.name)} is removed")


def activate(*, names: _Names, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Let schedules fire again. What was due meanwhile is not made up for.

    Examples:
      jobsched schedule activate count

    """
    _switch(names, config=configuration(config), is_active=True, json_output=json_output)


def deactivate(*, names: _Names, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Let schedules fire no more until they are activated. It outlasts restarts.

    Examples:
      jobsched schedule deactivate count

    """
    _switch(names, config=configuration(config), is_active=False, json_output=json_output)


def clear(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Forget all schedules and their history, in one commit. It cannot be undone.

    Those of the configuration come back at the next start of a node.

    Examples:
      jobsched schedule clear --yes

    """
    with dispatching(configuration(config)) as dispatcher:
        if is_asked(yes=yes) and (there := len(dispatcher.schedules.list())):
            ask(f"forget {_many(there)} and their history?")
        count = dispatcher.schedules.clear()
    if json_output:
        print_json({"removed": count})
    else:
        say(f"removed {_many(count)}")


def _many(count: int) -> str:
    return f"{count:,} schedule{'' if count == 1 else 's'}"


def _switch(names: Sequence[str], *, config: Config, is_active: bool, json_output: bool) -> None:
    with dispatching(config) as dispatcher, dispatcher.batch() as batch:
        switch = batch.schedules.activate if is_active else batch.schedules.deactivate
        found = [switch(name) for name in dict.fromkeys(names)]
    _warn_of_switch(found, config, is_active=is_active)
    if json_output:
        print_json([schedule_object(info) for info in found])
        return
    for info in found:
        if not is_active:
            say(f"{clean(info.name)} is not active")
        elif info.next_at is None:
            say(f"{clean(info.name)} is active, and has no time to come")
        else:
            say(f"{clean(info.name)} is active, next {info.next_at.astimezone().isoformat(' ', 'seconds')}")


def _warn_of_switch(found: Sequence[ScheduleInfo], config: Config, *, is_active: bool) -> None:
    """Say where the configuration will have it otherwise."""
    for info in found:
        declared = config.schedules.get(info.name)
        if declared is not None and declared.is_active not in (None, is_active):
            note(f"{info.name}: {info.source} says otherwise, and has the last word at the next start")


def _warn_of_files(config: Config, found: Sequence[ScheduleInfo], what: str) -> None:
    """Say which schedules a file declares: it will have them as it says."""
    for info in found:
        if info.source:
            when = "the next start of a node" if info.source == config.source else "`schedule apply`"
            note(f"{info.name} is declared in {info.source}, which {what} at {when}")


def _answer(info: ScheduleInfo, done: str, *, json_output: bool) -> None:
    due = due_times(info, _SHOWN) if info.is_active else []
    if json_output:
        print_json({**schedule_object(info), "next": [one.at for one in due]})
        return
    say(f"{done} {clean(info.name)}: {clean(info.task)} in {info.category}, {trigger_text(info.trigger)}")
    if not info.is_active:
        say("it is not active")
    if due:
        print_due_times(due, with_notes=False)

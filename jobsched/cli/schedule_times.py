"""The verbs on when schedules fire: next, lint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from jobsched.cli.changes import dispatching
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import age, note, print_json, say
from jobsched.cli.schedule_lines import due_object
from jobsched.cli.table import print_table
from jobsched.cli.when import moment
from jobsched.config import load_schedules
from jobsched.errors import InvalidOption, ScheduleNotFound
from jobsched.own_trigger import KnownTimes
from jobsched.schedule_lint import Finding
from jobsched.schedule_lint import lint as findings_of
from jobsched.schedule_view import ScheduleInfo
from jobsched.trigger import Cron, Trigger, anchored
from jobsched.trigger_data import from_data
from jobsched.trigger_explain import DueTime, explain

__all__ = ["due_times", "lint", "next_times", "print_due_times"]

_INSTANT = timedelta(microseconds=1)
_EXPRESSION = re.compile(r"@\w+|[\d*,/?LW#-]+(\s+\S+)+")


def next_times(
    *,
    which: Annotated[str, typer.Argument(metavar="NAME|EXPR", help="A schedule, or a cron expression.")],
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many.", show_default=True)] = 10,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of the expression. Default: UTC.")
    ] = None,
    seconds: Annotated[bool, typer.Option("--seconds", help="It has six fields, seconds first.")] = False,
    explained: Annotated[
        bool, typer.Option("--explain", help="Say what changes of the clock do, too.")
    ] = False,
    since: Annotated[str | None, typer.Option("--from", metavar="ISO", help="After this time.")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print when a schedule, or a cron expression, fires next. An expression needs no configuration.

    Examples:
      jobsched schedule next '30 2 * * *' --timezone Europe/Berlin -n 3
      jobsched schedule next '30 2 * * 0' --timezone Europe/Berlin --explain
      jobsched schedule next count

    """
    start = moment("--from", since)
    if _EXPRESSION.fullmatch(which.strip()):
        trigger = Cron(which, timezone=timezone or "UTC", seconds=seconds)
        due = explain(trigger, start or datetime.now(UTC), count)
    else:
        if timezone is not None or seconds:
            option = "--seconds" if seconds else "--timezone"
            raise InvalidOption(f"{option} goes with an expression of five fields or more, got {which!r}")
        with dispatching(configuration(config)) as dispatcher:
            info = dispatcher.schedules.get(which)
        due = due_times(info, count, start)
        if not info.is_active:
            note(f"{info.name} is not active: it fires at none of these times")
    if json_output:
        print_json([due_object(one) for one in due])
    elif due:
        print_due_times(due, with_notes=explained)
    else:
        say("it has no time to come")


def due_times(info: ScheduleInfo, count: int, start: datetime | None = None) -> list[DueTime]:
    """Return when a schedule is due after a time, now without one: between its start and end, and no more
    often than it may run.
    """
    if info.max_runs is not None:
        count = min(count, info.max_runs - info.runs)
    since = start or datetime.now(UTC)
    if info.start is not None:
        since = max(since, info.start - _INSTANT)
    found = explain(anchored(_known(info.trigger), since), since, max(count, 0))
    return [one for one in found if info.end is None or one.at <= info.end]


def _known(trigger: Trigger) -> Trigger:
    """Return a trigger that ends where nobody knows any more: the code of one of the user's is not here."""
    return msgspec.structs.replace(trigger, is_all=True) if isinstance(trigger, KnownTimes) else trigger


def print_due_times(due: Sequence[DueTime], *, with_notes: bool) -> None:
    """Print due times by the clock of their zone, and how far they are; the notes where asked for."""
    now = datetime.now(UTC)
    rows = []
    for one in due:
        away = (one.at - now).total_seconds()
        row = [_to_the_second(one.local), f"in {age(away)}" if away >= 0 else f"{age(-away)} ago"]
        after = "" if one.after_s is None else _gap(one.after_s)
        rows.append([*row, after, one.note] if with_notes else row)
    columns = ["due", "from now", *(["gap", "note"] if with_notes else [])]
    print_table(columns, rows, right=["from now", "gap"], wrapped=["note"])


def _to_the_second(local: str) -> str:
    return re.sub(r"\.\d+", "", local)


def _gap(seconds: float) -> str:
    """Return the time between two, as a clock counts it: the odd hour shows."""
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{f'{days}d ' if days else ''}{hours}:{rest // 60:02}:{rest % 60:02}"


def lint(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...|FILE]", help="Schedules, or a TOML file of some.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Look for what is odd about schedules.

    Never due, read otherwise by other crons, many in one minute. Without names, all that the store has
    and the configuration declares. Exit code 1 if anything is found.

    Examples:
      jobsched schedule lint
      jobsched schedule lint nightly.toml --json

    """
    settings = configuration(config)
    if names and len(names) == 1 and (Path(names[0]).is_file() or names[0].endswith(".toml")):
        given = dict(_declared(load_schedules(Path(names[0]), settings)[1]))
    else:
        with dispatching(settings) as dispatcher:
            infos = dispatcher.schedules.list()
        stored = {
            info.name: (_known(info.trigger), {"jitter": info.jitter_s})
            for info in infos
            if not info.ended_at
        }
        given = {**stored, **dict(_declared(settings.schedules))}
        if names:
            for name in names:
                if name not in given and name not in {info.name for info in infos}:
                    raise ScheduleNotFound(name, given)
            given = {name: one for name, one in given.items() if name in names}
    found = findings_of([(name, *one) for name, one in sorted(given.items())], now=datetime.now(UTC))
    _answer(found, len(given), json_output=json_output)


def _declared(schedules: Any) -> Iterator[tuple[str, tuple[Trigger, dict[str, Any]]]]:
    for name, declared in schedules.items():
        schedule = declared.schedule
        yield name, (from_data(schedule.trigger), {"jitter": schedule.jitter_s})


def _answer(found: Sequence[Finding], count: int, *, json_output: bool) -> None:
    if json_output:
        print_json([one._asdict() for one in found])
    elif found:
        rows = [[one.name or "several", one.code, one.text] for one in found]
        print_table(["schedule", "what", "why, and what to write"], rows, wrapped=["why, and what to write"])
    else:
        say(f"nothing odd about {count:,} schedule{'' if count == 1 else 's'}")
    if found:
        raise typer.Exit(1)

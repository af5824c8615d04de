"""The verb `schedule apply`: the schedules of a file, brought into the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobsched.cli.changes import dispatching
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import clean, print_json, say
from jobsched.config import load_schedules
from jobsched.config_values import DeclaredSchedule
from jobsched.dispatcher import Dispatcher
from jobsched.errors import ScheduleError
from jobsched.schedule_sync import Difference, changes, differences

__all__ = ["apply"]

_TRIES = 5  # where somebody else changes the same schedules meanwhile
_MARKS = {"added": "+", "removed": "-", "unchanged": "="}


def apply(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file with [schedules.NAME] tables.")],
    diff: Annotated[bool, typer.Option("--diff", help="Only show what would be done.")] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Bring the schedules of a file into the store, in one commit.

    What it declared before and does not any more is removed. A file of its own has [schedules.NAME]
    tables as categories.toml has them, and no others. The configuration itself may be applied, too: a
    node then need not be started again.

    Examples:
      jobsched schedule apply categories.toml --diff
      jobsched schedule apply categories.toml

    """
    settings = configuration(config)
    source, declared = load_schedules(file, settings)
    with dispatching(settings) as dispatcher:
        found = _differences(dispatcher, source, declared) if diff else _applied(dispatcher, source, declared)
    if json_output:
        print_json({"source": source, "applied": not diff, "changes": [_object(one) for one in found]})
    else:
        _print(found, is_done=not diff)


def _differences(
    dispatcher: Dispatcher, source: str, declared: dict[str, DeclaredSchedule]
) -> list[Difference]:
    return differences(declared, dispatcher.schedules.stored(), source, dispatcher.now())


def _applied(dispatcher: Dispatcher, source: str, declared: dict[str, DeclaredSchedule]) -> list[Difference]:
    """Make the changes, anew where somebody else was faster."""
    for attempt in range(_TRIES):
        found = _differences(dispatcher, source, declared)
        try:
            dispatcher.commit((), changes(found))
        except ScheduleError:
            if attempt + 1 == _TRIES:
                raise
        else:
            break
    return found


def _object(one: Difference) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind.replace(" ", "_"),
        "note": one.note or None,
        "fields": [field._asdict() for field in one.fields],
    }


def _print(found: Sequence[Difference], *, is_done: bool) -> None:
    for one in found:
        if one.change is not None:
            say(f"{_MARKS.get(one.kind, '~')} {clean(one.name)}: {clean(one.title)}")
        for step in one.steps:
            say(f"    {clean(step)}")
    counts = Counter(one.kind for one in found)
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no schedules"
    say(summary if is_done else f"{summary}; nothing was changed")

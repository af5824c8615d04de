"""The options of `schedule add` and `schedule update`, and what they say to `Schedules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from jobsched.cli.intake import arguments
from jobsched.cli.options import duration, json_value, payload_value
from jobsched.cli.when import moment
from jobsched.errors import InvalidOption
from jobsched.trigger import Cron, Every, Once, Trigger

__all__ = [
    "Arg", "At", "CronText", "End", "EveryText", "ExpiresIn", "Grace", "Jitter", "MaxRetries", "MaxRuns",
    "Misfire", "Most", "Overlap", "Payload", "Priority", "Seconds", "Start", "Timeout", "Timezone",
    "given_arguments", "given_options", "given_trigger",
]  # fmt: skip

CronText = Annotated[str | None, typer.Option("--cron", metavar="EXPR", help="Fire by a cron expression.")]
EveryText = Annotated[
    str | None, typer.Option("--every", metavar="5m", help="Fire in steps of this, from now on.")
]
At = Annotated[str | None, typer.Option(metavar="ISO", help="Fire once, at a time given with its zone.")]
Timezone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="Of --cron, like Europe/Berlin. Default: UTC.")
]
Seconds = Annotated[bool, typer.Option("--seconds", help="--cron has six fields, the seconds first.")]
Payload = Annotated[str | None, typer.Option(metavar="JSON", help="Arguments: an object, or an array.")]
Arg = Annotated[list[str] | None, typer.Option(metavar="JSON", help="A positional argument; repeatable.")]
Start = Annotated[str | None, typer.Option(metavar="ISO", help="Not before this time.")]
End = Annotated[str | None, typer.Option(metavar="ISO", help="Not after this time.")]
MaxRuns = Annotated[int | None, typer.Option(metavar="N", help="End after so many jobs; 0: no limit.")]
Jitter = Annotated[str | None, typer.Option(metavar="5m", help="Fire up to this much after the due time.")]
Misfire = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="Due times that could not be kept: run_once, run_all or skip."),
]
Most = Annotated[int | None, typer.Option(metavar="N", help="With run_all: so many jobs at most.")]
Grace = Annotated[str | None, typer.Option(metavar="1m", help="Skip what is later than this.")]
Overlap = Annotated[
    str | None, typer.Option(metavar="HOW", help="While the job before has not ended: allow, skip or queue.")
]
Priority = Annotated[int | None, typer.Option(metavar="N", help="Higher first within the category.")]
MaxRetries = Annotated[int | None, typer.Option(metavar="N", help="Retries after a failure.")]
Timeout = Annotated[str | None, typer.Option(metavar="30s", help="A run that takes longer is ended.")]
ExpiresIn = Annotated[str | None, typer.Option(metavar="10m", help="Cancel a job not started by then.")]

_TIMES = ("start", "end")
_PERIODS = ("jitter", "grace", "timeout", "expires_in")
_NONE = "none"


def given_trigger(
    cron: str | None,
    every: str | None,
    at: str | None,
    timezone: str | None,
    *,
    seconds: bool,
    before: Trigger | None = None,
) -> Trigger | None:
    """Return the trigger that the options name; None without one.

    A time zone alone is a new one for the expression that a schedule has `before`.
    """
    given = [
        f"--{name}" for name, value in (("cron", cron), ("every", every), ("at", at)) if value is not None
    ]
    if len(given) > 1:
        raise InvalidOption(f"give one of --cron, --every and --at, got {' and '.join(given)}")
    if not given and isinstance(before, Cron) and timezone is not None:
        cron, seconds = before.expr, before.seconds
    if cron is not None:
        return Cron(cron, timezone="UTC" if timezone is None else timezone, seconds=seconds)
    if timezone is not None or seconds:
        raise InvalidOption(f"{'--seconds' if seconds else '--timezone'} goes with --cron")
    if every is not None:
        return Every(duration("--every", every) or 0)
    when = moment("--at", at)
    return None if when is None else Once(when)


def given_arguments(payload: str | None, arg: list[str] | None) -> dict[str, Any]:
    """Return args and kwargs that the options give; nothing without."""
    if payload is None and not arg:
        return {}
    args, kwargs = arguments([json_value("--arg", text) for text in arg or ()], {}, payload_value(payload))
    return {"args": args, "kwargs": kwargs}


def given_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given, as `Schedules` takes them; `none` is for those to be none."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if (name, value) == ("max_runs", 0) or (name in (*_TIMES, *_PERIODS) and value == _NONE):
            found[name] = None
        elif name in _TIMES:
            found[name] = moment(option, value)
        else:
            found[name] = duration(option, value) if name in _PERIODS else value
    return found

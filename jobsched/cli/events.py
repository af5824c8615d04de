"""The verb events: what happens in the node."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import is_terminal, print_json, say
from jobsched.config import Config
from jobsched.errors import InvalidOption, Unavailable, nearest
from jobsched.event import KINDS, Event, plain
from jobsched.node_connection import NodeConnection
from jobsched.wire import Listen

__all__ = ["events"]


def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print events as they happen.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND,...", help="Only these, like job.failed, or job for all of jobs."),
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Only those of these categories.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME,...", help="Only those of these tasks.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many of the last ones.")
    ] = 1000,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print what happens in the node.

    The last events, or with --follow those to come, until it stops.

    Of jobs, the last events have those that failed, were retried, cancelled or set aside; with --follow
    each of their steps is told. A reader that does not keep up misses some, and is told how many. With
    --json one object a line.

    Examples:
      jobsched events --limit 20
      jobsched events --follow --kind job.failed,job.quarantined --json
      jobsched events --follow --category mail

    """
    settings = configuration(config)
    categories = _split(category)
    for name in categories:
        settings.category(name)
    wanted = Listen(
        1,
        follow=follow,
        kinds=frozenset(_kinds(_split(kind))),
        categories=frozenset(categories),
        tasks=frozenset(_split(task)),
    )
    width = shutil.get_terminal_size().columns if is_terminal() else None
    last: list[Event] = []
    for part in _heard(settings, wanted):
        if follow:
            _print(part, width, json_output=json_output)
        else:
            last += part
    _print(last[-limit:], width, json_output=json_output)


def _split(names: Iterable[str] | None) -> list[str]:
    return [name.strip() for text in names or () for name in text.split(",") if name.strip()]


def _kinds(names: Iterable[str]) -> Iterable[str]:
    """Yield the kinds that names stand for."""
    for name in names:
        found = [kind for kind in KINDS if kind == name or kind.startswith(f"{name}.")]
        if not found:
            raise InvalidOption(f"--kind: no event is called {name!r}{nearest(name, KINDS)}")
        yield from found


def _heard(settings: Config, wanted: Listen) -> Iterable[Sequence[Event]]:
    """Yield what the node tells, as it comes."""
    place = settings.store.path
    try:
        connection = NodeConnection(place)
    except (FileNotFoundError, ConnectionError, TimeoutError, BlockingIOError):
        raise Unavailable(f"no node runs on {place}: `jobsched run` starts one") from None
    try:
        yield from connection.listen(wanted)
    except ConnectionError:
        raise Unavailable(f"the node on {place} is gone without having stopped") from None
    finally:
        connection.close()


def _print(heard: Iterable[Event], width: int | None, *, json_output: bool) -> None:
    if json_output:
        print_json(*map(plain, heard))
        return
    from jobsched.cli.event_view import line  # noqa: PLC0415 (only here)

    for event in heard:
        say(line(event, width))
    sys.stdout.flush()

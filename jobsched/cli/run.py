"""The verb run: the node, in the foreground."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from jobsched.cli.logs import logging_to
from jobsched.cli.options import ConfigOption, JsonOption, configuration, duration
from jobsched.cli.output import console, is_terminal
from jobsched.cli.views import json_lines, plain_lines

if TYPE_CHECKING:
    from jobsched.node import Node

__all__ = ["run"]


def run(
    *,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when no job is pending, scheduled or running.")
    ] = False,
    grace: Annotated[
        str | None, typer.Option(metavar="30s", help="How long running jobs may take to finish at a stop.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Run the node: its workers take the jobs of all categories. Ctrl-C drains and stops.

    Shows a live table at a terminal, a line when something changes elsewhere, and with --json one
    object a line. With --until-idle the exit code is 1 if a job failed for good meanwhile; it is 3 if
    a stop has cut jobs off and put them back.

    Examples:
      jobsched run
      jobsched run --until-idle
      jobsched run --grace 2m --json

    """
    settings = configuration(config)
    grace_s = duration("--grace", grace)
    from jobsched.node import Node  # noqa: PLC0415 (the node's parts are not for the other verbs)

    if is_terminal() and not json_output:
        from jobsched.cli.live import LiveView  # noqa: PLC0415 (rich is slow to import)

        live = LiveView(console())
        with live, logging_to(live.print_above if sys.stderr.isatty() else None):
            code = _run(Node(settings, until_idle=until_idle, grace_s=grace_s, report=live.show))
    else:
        with _stdout_of_our_own(), json_lines() if json_output else plain_lines() as view, logging_to(None):
            code = _run(Node(settings, until_idle=until_idle, grace_s=grace_s, report=view.show))
    _flush_what_can_be()
    if code:
        raise typer.Exit(code)


def _run(node: Node) -> int:
    """Run a node. A signal that comes when it is done must not turn its clean end into a death: the
    node puts back the handlers that it has found, and Python's own end resets all but the ignored.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: node.stop())
    try:
        return node.run()
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _flush_what_can_be() -> None:
    """Leave no output that cannot be written, on a full disk or to a reader that is gone: how the
    node has ended is what the exit code says.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())


@contextlib.contextmanager
def _stdout_of_our_own() -> Iterator[None]:
    """Keep stdout for the reports: what children print, user modules among them, goes to stderr."""
    sys.stdout.flush()
    before, ours = sys.stdout, os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w", encoding=before.encoding, errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # its disk is full, or its reader gone
            sys.stdout.close()
        sys.stdout = before

"""The verb run: the node, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from jobsched.cli.logs import logging_to
from jobsched.cli.options import ConfigOption, JsonOption, configuration, duration
from jobsched.cli.output import console, is_terminal
from jobsched.cli.views import View, json_lines, plain_lines

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
    object a line. With --until-idle the exit code is 1 if a job failed for good meanwhile.

    Examples:
      jobsched run
      jobsched run --until-idle
      jobsched run --grace 2m --json

    """
    settings = configuration(config)
    grace_s = duration("--grace", grace)
    from jobsched.node import Node  # noqa: PLC0415 (the node's parts are not for the other verbs)

    screen = console() if is_terminal() and not json_output else None
    view: View = json_lines() if json_output else plain_lines()
    if screen is not None:
        from jobsched.cli.live import LiveView  # noqa: PLC0415 (rich is slow to import)

        view = LiveView(screen)
    with logging_to(screen), view:
        code = Node(settings, until_idle=until_idle, grace_s=grace_s, report=view.show).run()
    if code:
        raise typer.Exit(code)

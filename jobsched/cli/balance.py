"""The verbs on the balancer's decisions."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from jobsched.cli.options import ConfigOption, JsonOption, add_verb, configuration
from jobsched.cli.output import iso_time, local_time, print_json, say
from jobsched.cli.reading import reading
from jobsched.cli.table import print_table
from jobsched.report import Decision

__all__ = ["balance"]

balance = typer.Typer(
    help="Look at what the balancer decided, and why.", rich_markup_mode=None, add_completion=False
)


@balance.callback()
def _group(*, config: ConfigOption = None) -> None:
    """Look at what the balancer decided, and why."""


def log(
    *,
    count: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many.", show_default=True)] = 20,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """List the balancer's last decisions with their reasons, the newest last.

    Examples:
      jobsched balance log
      jobsched balance log -n 5 --json

    """
    with reading(configuration(config)) as store:
        decisions = store.decisions(count) if store else []
    if json_output:
        print_json([decision_object(decision) for decision in decisions])
    elif not decisions:
        say("no decisions yet")
    for decision in [] if json_output else decisions:
        _print_decision(decision)


add_verb(balance, log)


def decision_object(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    return {**msgspec.to_builtins(decision), "at": iso_time(decision.at), "moves": decision.moves}


def _print_decision(decision: Decision) -> None:
    moved = f"{decision.moves} worker{'' if decision.moves == 1 else 's'} moved"
    say(f"{local_time(decision.at)}  {moved}, budget {decision.budget}")
    print_table(
        ["  category", "workers", "reason"],
        [
            [f"  {name}", f"{decision.before.get(name, 0)} -> {after}", decision.reasons.get(name, "")]
            for name, after in decision.after.items()
        ],
        elastic=["  category"],
        wrapped=["reason"],
    )

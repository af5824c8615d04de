"""The verbs: each is imported when it is called, so that all of them, and the help, are there at once."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from jobsched.cli.options import add_verb

__all__ = ["VERBS", "Verbs"]


class Verb(NamedTuple):
    """Where a verb is: a function of its name in a module beside this one, or a group of verbs. `help` is
    its first line there.
    """

    module: str
    help: str


VERBS = {
    "init": Verb("setup", "Write a categories.toml and a module of tasks to start from."),
    "check": Verb("setup", "Find every problem of the configuration and its task modules."),
    "run": Verb("run", "Run the node: its workers take the jobs of all categories."),
    "demo": Verb("bench", "Run a small workload and watch the balancer move workers to it."),
    "dispatch": Verb("dispatch", "Put a job, or many, on the queue."),
    "jobs": Verb("jobs", "List jobs."),
    "show": Verb("jobs", "Show everything about one job."),
    "cancel": Verb("operations", "Cancel jobs."),
    "retry": Verb("operations", "Send jobs to their queues again."),
    "delete": Verb("operations", "Forget jobs that do not run, waiting ones too."),
    "stats": Verb("counts", "Count the jobs per category and state."),
    "events": Verb("events", "Print what happens in the node."),
    "prune": Verb("prune", "Delete jobs that have ended, oldest first."),
    "backup": Verb("store", "Copy the store to a new directory, while the node may run."),
    "verify": Verb("store", "Look for damage in a store or backup."),
    "restore": Verb("store", "Put a backup in the place of the store."),
    "doctor": Verb("doctor", "Look for what is wrong with machine, store and configuration."),
    "category": Verb("counts", "Look at categories, pause, resume and empty them."),
    "schedule": Verb("schedule", "Add, change, look at and run schedules."),
    "balance": Verb("balance", "Look at what the balancer decided, and why."),
    "bench": Verb("bench", "Measure this machine."),
}


class Verbs(TyperGroup):
    """The group of all verbs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = cast("Any", dict.fromkeys(VERBS))  # their names are all that is read

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (typer's own form)
        """Return a verb, imported by now; None if there is none of that name."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        found = getattr(import_module(f"jobsched.cli.{verb.module}"), cmd_name)
        if isinstance(found, typer.Typer):
            return get_command(found)
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        add_verb(alone, found, cmd_name)
        return get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (typer's own form)
        """Write the list of the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

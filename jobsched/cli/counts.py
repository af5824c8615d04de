"""The verbs on categories: stats, category list, pause, resume."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from jobsched.cli.options import ConfigOption, JsonOption, add_verb, configuration
from jobsched.cli.output import print_json, say
from jobsched.cli.reading import read_stats
from jobsched.cli.table import print_table
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.job import State
from jobsched.store.base import CategoryStats

__all__ = ["category", "stats"]

category = typer.Typer(help="Look at categories, pause and resume them.", rich_markup_mode=None)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The category.")]

# Columns that are left out where they would only hold zeros, so that the rest fits a terminal.
_RARE = (State.SCHEDULED, State.CANCELLED, State.PARKED, State.QUARANTINED)


def stats(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Count the jobs per category and state.

    Examples:
      jobsched stats
      jobsched stats --json

    """
    found = read_stats(configuration(config))
    if json_output:
        total = {str(state): sum(row[state] for row in found.values()) for state in State}
        print_json(
            {
                "categories": {name: {**_counts(row), "paused": row.paused} for name, row in found.items()},
                "total": {**total, "total": sum(total.values())},
            }
        )
    else:
        _print_stats(found)


@category.callback()
def _group(*, config: ConfigOption = None) -> None:
    """Look at categories, pause and resume them."""


def list_categories(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """List the categories with their settings and their pending jobs.

    Examples:
      jobsched category list
      jobsched category list --json

    """
    settings = configuration(config)
    rows = [_category(settings, name, row) for name, row in read_stats(settings).items()]
    if json_output:
        print_json(rows)
        return
    print_table(
        ["category", "priority", "min", "max", "retries", "timeout", "pending", "note"],
        [_cells(row) for row in rows],
        right=["priority", "min", "max", "retries", "timeout", "pending"],
        elastic=["category", "note"],
        styles={"paused": "yellow", "not configured": "red"},
    )


add_verb(category, list_categories, "list")


def pause(*, name: _Name, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Let no more jobs of a category start. Running ones go on; it outlasts restarts.

    Examples:
      jobsched category pause mail

    """
    with contextlib.closing(Dispatcher(configuration(config))) as dispatcher:
        dispatcher.pause(name)
    _answer(name, paused=True, json_output=json_output)


def resume(*, name: _Name, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Let jobs of a category start again.

    Examples:
      jobsched category resume mail

    """
    with contextlib.closing(Dispatcher(configuration(config))) as dispatcher:
        dispatcher.resume(name)
    _answer(name, paused=False, json_output=json_output)


for _verb in (pause, resume):
    add_verb(category, _verb)


def _answer(name: str, *, paused: bool, json_output: bool) -> None:
    if json_output:
        print_json({"category": name, "paused": paused})
    else:
        say(f"{name} {'is paused' if paused else 'goes on'}")


def _counts(row: CategoryStats) -> dict[str, int]:
    counts = {str(state): row[state] for state in State}
    return {**counts, "total": sum(counts.values())}


def _print_stats(found: dict[str, CategoryStats]) -> None:
    states = [state for state in State if state not in _RARE or any(row[state] for row in found.values())]
    rows = [
        [
            f"{name} (paused)" if row.paused else name,
            *(str(row[state]) for state in states),
            str(sum(row.counts)),
        ]
        for name, row in found.items()
    ]
    totals = [sum(row[state] for row in found.values()) for state in states]
    rows.append(["total", *map(str, totals), str(sum(sum(row.counts) for row in found.values()))])
    names = [str(state) for state in states]
    print_table(["category", *names, "total"], rows, right=[*names, "total"], elastic=["category"])


def _category(config: Config, name: str, row: CategoryStats) -> dict[str, Any]:
    settings = config.categories.get(name)
    return {
        "name": name,
        "configured": settings is not None,
        "paused": row.paused,
        "priority": settings and settings.priority,
        "min_workers": settings and settings.min_workers,
        "max_workers": settings and settings.max_workers,
        "max_retries": settings and settings.max_retries,
        "timeout_s": settings and settings.timeout_s,
        "counts": _counts(row),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    """Return a category's line in the table; what is not limited is a dash."""
    settings = [row[key] for key in ("priority", "min_workers", "max_workers", "max_retries", "timeout_s")]
    remarks = ["paused"] * row["paused"] + ["not configured"] * (not row["configured"])
    return [
        row["name"],
        *("-" if value is None else f"{value:g}" for value in settings),
        str(row["counts"]["pending"]),
        ", ".join(remarks),
    ]

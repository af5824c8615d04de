"""The verbs on categories: stats, category list, pause, resume, purge."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from jobsched.cli.changes import Settings, answer_where, change_where, dispatching
from jobsched.cli.operations import DELETE
from jobsched.cli.options import ConfigOption, JsonOption, add_verb, configuration, duration
from jobsched.cli.output import iso_time, local_time, print_json, say
from jobsched.cli.reading import read_stats, survey
from jobsched.cli.table import print_table
from jobsched.cli.where import Where
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import UnknownCategory
from jobsched.job import State
from jobsched.options import checked_period
from jobsched.rate import Rate
from jobsched.store.base import CategoryStats

__all__ = ["category", "stats"]

category = typer.Typer(
    help="Look at categories, pause, resume and empty them.", rich_markup_mode=None, add_completion=False
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The category.")]

# Columns that are left out where they would only hold zeros, so that the rest fits a terminal.
_RARE = (State.SCHEDULED, State.CANCELLED, State.PARKED, State.QUARANTINED)


def stats(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Count the jobs per category and state.

    Where a node runs, it also says why no jobs start, if they do not.

    Examples:
      jobsched stats
      jobsched stats --json

    """
    settings = configuration(config)
    found, node = read_stats(settings), survey(settings)
    if json_output:
        total = {str(state): sum(row[state] for row in found.values()) for state in State}
        print_json(
            {
                "categories": {name: _stats_object(row) for name, row in found.items()},
                "total": {**total, "total": sum(total.values())},
                "node": node
                and {
                    "uptime_s": round(node.uptime_s, 3),
                    "draining": node.draining,
                    "held": node.held or None,
                    "busy": sum(report.busy for report in node.categories.values()),
                    "workers": sum(report.workers for report in node.categories.values()),
                },
            }
        )
        return
    _print_stats(found)
    if node is not None and node.held:
        say(f"no jobs start: {node.held}")


@category.callback()
def _group(*, config: ConfigOption = None) -> None:
    """Look at categories, pause, resume and empty them."""


def list_categories(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """List the categories with their settings and their pending jobs.

    Examples:
      jobsched category list
      jobsched category list --json

    """
    settings = configuration(config)
    found = read_stats(settings)
    rows = [_category(settings, name, row) for name, row in found.items()]
    if json_output:
        print_json(rows)
        return
    rare = [key for key in ("rate", "max_pending") if any(row[key] for row in rows)]
    print_table(
        ["category", "priority", "min", "max", "retries", "timeout", *rare, "pending", "note"],
        [_cells(row, rare) for row in rows],
        right=["priority", "min", "max", "retries", "timeout", *rare, "pending"],
        elastic=["category"],
        wrapped=["note"],
        styles={"paused": "yellow", "not configured": "red"},
    )
    _print_ends(found)


add_verb(category, list_categories, "list")


def pause(
    *,
    name: _Name,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="10m", help="Go on by itself after this long.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Let no more jobs of a category start. Running ones go on; it outlasts restarts.

    Examples:
      jobsched category pause mail
      jobsched category pause mail --for 10m

    """
    seconds = checked_period("--for", duration("--for", for_))
    with contextlib.closing(Dispatcher(configuration(config))) as dispatcher:
        dispatcher.pause(name, seconds)
    _answer(name, paused=True, json_output=json_output, for_=for_)


def resume(*, name: _Name, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Let jobs of a category start again.

    Examples:
      jobsched category resume mail

    """
    with contextlib.closing(Dispatcher(configuration(config))) as dispatcher:
        dispatcher.resume(name)
    _answer(name, paused=False, json_output=json_output)


def purge(
    *,
    name: _Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Delete all jobs of a category that wait: pending and scheduled ones. It cannot be undone.

    Examples:
      jobsched category purge mail --dry-run
      jobsched category purge mail --yes --json

    """
    loaded = configuration(config)
    if name not in loaded.categories:
        known = read_stats(loaded)
        if name not in known:
            raise UnknownCategory(name, known)
    settings = Settings(config=loaded, dry_run=dry_run, yes=yes, json_output=json_output)
    where = Where(states=frozenset({State.PENDING, State.SCHEDULED}), category=name, checks=())
    with dispatching(loaded) as dispatcher:
        answer_where(DELETE, settings, change_where(DELETE, settings, dispatcher, where), [])


for _verb in (pause, resume, purge):
    add_verb(category, _verb)


def _answer(name: str, *, paused: bool, json_output: bool, for_: str | None = None) -> None:
    if json_output:
        print_json({"category": name, "paused": paused, **({"for": for_} if for_ else {})})
    else:
        say(f"{name} {'is paused' if paused else 'goes on'}{f' for {for_}' if for_ else ''}")


def _counts(row: CategoryStats) -> dict[str, int]:
    counts = {str(state): row[state] for state in State}
    return {**counts, "total": sum(counts.values())}


def _stats_object(row: CategoryStats) -> dict[str, Any]:
    return {
        **_counts(row),
        "paused": row.paused,
        "paused_until": iso_time(row.resume_at) if row.paused else None,
        "at_limits": row.limited,
    }


def _print_ends(found: dict[str, CategoryStats]) -> None:
    """Print when pauses end that do so by themselves."""
    for name, row in found.items():
        if row.paused and row.resume_at:
            say(f"{name}: paused until {local_time(row.resume_at)[:19]}")


_UNITS = {1.0: "s", 60.0: "m", 3600.0: "h", 86_400.0: "d"}


def _rate(rate: Rate) -> str:
    """Return a rate as categories.toml has it: ``100/m``."""
    return f"{rate.count}/{_UNITS.get(rate.per_s, f'{rate.per_s:g}s')}"


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
    _print_ends(found)
    for name, row in found.items():
        if row.limited:
            say(f"{name}: {row.limited:,} of its pending jobs wait at a limit")


def _category(config: Config, name: str, row: CategoryStats) -> dict[str, Any]:
    settings = config.categories.get(name)
    return {
        "name": name,
        "configured": settings is not None,
        "paused": row.paused,
        "paused_until": iso_time(row.resume_at) if row.paused else None,
        "priority": settings and settings.priority,
        "min_workers": settings and settings.min_workers,
        "max_workers": settings and settings.max_workers,
        "max_retries": settings and settings.max_retries,
        "timeout_s": settings and settings.timeout_s,
        "rate": _rate(settings.rate) if settings and settings.rate else None,
        "max_pending": settings and settings.max_pending,
        "counts": _counts(row),
    }


def _cells(row: dict[str, Any], rare: list[str]) -> list[str]:
    """Return a category's line in the table; what is not limited is a dash."""
    remarks = ["paused"] * row["paused"] + ["not configured"] * (not row["configured"])
    settings = [row[key] for key in ("priority", "min_workers", "max_workers", "max_retries", "timeout_s")]
    return [
        row["name"],
        *("-" if value is None else f"{value:g}" for value in settings),
        *("-" if row[key] is None else str(row[key]) for key in rare),
        str(row["counts"]["pending"]),
        ", ".join(remarks),
    ]

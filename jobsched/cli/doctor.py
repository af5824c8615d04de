"""The verb doctor: what may be wrong, and the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import typer

from jobsched.cli.check import inspect_tasks
from jobsched.cli.found import print_finding
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import print_json, say
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.doctor import contents, environment, machine, place
from jobsched.doctor.finding import Finding, error, fine
from jobsched.errors import ConfigError

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "error": "bold red"}


def doctor(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Look for what is wrong with machine, store and configuration.

    Changes nothing; the node may run. Each problem comes with the command that mends it. Exit code 1
    if anything is an error; what is only a warning does not count.

    Examples:
      jobsched doctor
      jobsched -c shop/categories.toml doctor --json

    """
    found = list(_examine(config))
    errors = sum(finding.level == "error" for finding in found)
    if json_output:
        print_json({"ok": not errors, "findings": [msgspec.to_builtins(finding) for finding in found]})
    else:
        _print(found)
    if errors:
        raise typer.Exit(1)


def _examine(given: Path | None) -> Iterator[Finding]:
    """Look at one thing after the other; without a configuration there is no store to look at."""
    now = SystemClock().now()
    try:
        settings = configuration(given)
    except ConfigError as problem:
        yield from environment.look(os.cpu_count() or 1)
        for line in problem.problems:
            yield error("config", line, "jobsched check, or jobsched init to begin")
        return
    yield from environment.look(settings.workers)
    yield from _look_at_config(settings)
    yield from machine.look(settings.store.path, now)
    if settings.store.kind == "memory":
        yield fine("store", "a memory: store lives in its node alone")
    elif not settings.store.path.exists():
        yield fine("store", f"{settings.store.path} does not exist yet: nothing was dispatched")
    else:
        yield from _look_at_store(settings, now)


def _look_at_config(settings: Config) -> Iterator[Finding]:
    """Import the task modules in a child process, as `jobsched check` does."""
    tasks, problems = inspect_tasks(settings)
    for problem in problems:
        yield error("config", problem, "correct it, then: jobsched check")
    if not problems:
        name = os.path.relpath(settings.path) if settings.path else "configuration"
        yield fine("config", f"{name}: {len(tasks)} tasks, {len(settings.categories)} categories")


def _look_at_store(settings: Config, now: int) -> Iterator[Finding]:
    store = settings.store.path
    usable = place.is_usable(store)
    yield usable
    if usable.level != "error":
        yield from place.look(store)
        yield from contents.look(store, settings.categories, now)


def _print(found: list[Finding]) -> None:
    for finding in found:
        print_finding(
            finding.level, [f"{finding.area}: {finding.what}"], finding.mend, _STYLES[finding.level]
        )
    errors, warnings = (sum(finding.level == level for finding in found) for level in ("error", "warn"))
    say(f"\nerrors: {errors}, warnings: {warnings}, fine: {len(found) - errors - warnings}")

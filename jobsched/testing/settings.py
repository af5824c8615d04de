"""The configuration of an app: a categories.toml, or what a test says inline."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jobsched.config import Config, find_config, load_config, parse_config
from jobsched.errors import InvalidOption, TasksNotLoaded

__all__ = ["Categories", "config_of", "load_tasks"]

Categories = Mapping[str, Mapping[str, Any]] | Collection[str]
"""Names of categories, or their settings by name, as categories.toml has them."""


def config_of(
    config: Config | str | os.PathLike[str] | None,
    categories: Categories | None,
    tasks: Sequence[str],
    workers: int | None,
) -> Config:
    """Return the configuration: of a file, the one found as usual without anything, or of inline values.

    Raises ConfigError with every problem, InvalidOption for a file and inline values together.
    """
    if categories is None:
        if tasks or workers is not None:
            raise InvalidOption("tasks and workers go with categories; a file has its own")
        return config if isinstance(config, Config) else load_config(find_config(config))
    if config is not None:
        raise InvalidOption("pass a config or categories, not both")
    tables = categories if isinstance(categories, Mapping) else {name: {} for name in categories}
    made = parse_config(_toml(tables, 4 if workers is None else workers), Path.cwd())
    return msgspec.structs.replace(made, tasks=tuple(tasks))


def _toml(categories: Mapping[str, Mapping[str, Any]], workers: int) -> str:
    lines = ['tasks = ["given"]', f"workers = {json.dumps(workers)}"]
    for name, settings in categories.items():
        lines.append(f"[categories.{json.dumps(name)}]")
        lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join(lines)


def load_tasks(config: Config) -> str | None:
    """Import the configured modules, the configuration's folder first on the path, as a worker does.
    Return the folder if it had to be put there. Raises TasksNotLoaded.
    """
    folder = str(config.directory)
    is_new = bool(config.tasks) and folder not in sys.path
    if is_new:
        sys.path.insert(0, folder)
    for module in (*config.tasks, "jobsched.refill"):  # the one task that is always on
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 (the user's code)
            if is_new:
                sys.path.remove(folder)
            raise TasksNotLoaded(module, traceback.format_exc()) from None
    return folder if is_new else None

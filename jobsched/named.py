"""Which task is meant: by itself, by a function that it was made of, or by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from jobsched import definition as tasks
from jobsched.definition import TaskDefinition
from jobsched.errors import InvalidOption
from jobsched.options import checked_task_name

__all__ = ["TaskLike", "identify"]

TaskLike = str | Callable[..., Any] | TaskDefinition


def identify(task: TaskLike, modules: Sequence[str]) -> tuple[TaskDefinition | None, str]:
    """Return the definition of a task, where this process knows it, and its name. `modules` are those that
    workers import. Raises InvalidOption for what is no task, or none that a worker could import.
    """
    if isinstance(task, TaskDefinition):
        definition = task
    elif isinstance(task, str):
        known = tasks.lookup(task)
        return known, task if known else checked_task_name(task)
    elif callable(task):
        definition = tasks.definition_of(task)
    else:
        raise InvalidOption(f"task must be a task, a partial of one, or a name, got {task!r}")
    if definition.name.startswith("__main__:"):
        return definition, _importable(definition, modules)
    return definition, definition.name


def _importable(definition: TaskDefinition, modules: Sequence[str]) -> str:
    """Return the name as workers know it of a task that the running script defines."""
    _, _, qualname = definition.name.partition(":")
    from importlib.util import find_spec  # noqa: PLC0415 (both slow to import, and for scripts alone)
    from pathlib import Path  # noqa: PLC0415

    script = getattr(sys.modules["__main__"], "__file__", None)
    for configured in modules if script else ():
        try:
            spec = find_spec(configured)
        except ModuleNotFoundError:  # its package is not on this script's path
            continue
        if spec and spec.origin and Path(spec.origin).resolve() == Path(script or "").resolve():
            return f"{configured}:{qualname}"
    raise InvalidOption(
        f"task {qualname!r} is defined in the script that runs, which no worker can import: "
        "move it to a module listed under tasks"
    )

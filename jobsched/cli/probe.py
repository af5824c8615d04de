"""The child of `jobsched check` that imports the task modules, so that the check itself survives
whatever they do. Writes one JSON line per module to the file it is told.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from jobsched import built_in
from jobsched import definition as tasks
from jobsched.cli.task_modules import problem_of
from jobsched.definition import TaskDefinition

__all__ = ["main"]


def main(answer: str, modules: list[str]) -> None:
    """Import the modules in order; say of each what went wrong, or which tasks it brought."""
    tasks.keep_off(built_in.off(modules))  # as a worker does
    with Path(answer).open("w", encoding="utf-8") as file:
        for module in modules:
            before = tasks.known()
            found = _try(module)
            brought = [task for name, task in tasks.known().items() if name not in before]
            found["tasks"] = [_describe(task) for task in brought]
            file.write(json.dumps({"module": module, **found}) + "\n")
            file.flush()
    os._exit(0)  # threads that a module has started must not keep us


def _try(module: str) -> dict[str, Any]:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the user's code; it is reported)
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        problem, trace = problem_of(error)
        return {"problem": problem, "traceback": trace, "missing": missing == module}
    return {"problem": None}


def _describe(task: TaskDefinition) -> dict[str, Any]:
    code = getattr(task.function, "__code__", None)
    return {
        "name": task.name,
        "category": task.category,
        "priority": task.priority,
        "max_retries": task.max_retries,
        "timeout_s": task.timeout_s,
        "file": code and code.co_filename,
        "line": code and code.co_firstlineno,
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

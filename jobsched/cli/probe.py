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
from jobsched.errors import ConfigError
from jobsched.hook_process import find_hook

__all__ = ["main"]


def main(answer: str, modules: list[str], hooks: list[str]) -> None:
    """Import the modules in order; say of each what went wrong, or which tasks it brought. Then look for
    the hooks, and say likewise.
    """
    tasks.keep_off(built_in.off(modules))  # as a worker does
    with Path(answer).open("w", encoding="utf-8") as file:
        for module in modules:
            before = tasks.known()
            found = _try(module)
            brought = [task for name, task in tasks.known().items() if name not in before]
            found["tasks"] = [_describe(task) for task in brought]
            file.write(json.dumps({"module": module, **found}) + "\n")
            file.flush()
        for hook in hooks:
            file.write(json.dumps({"hook": hook, "problem": _hook_problem(hook)}) + "\n")
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


def _hook_problem(name: str) -> str | None:
    try:
        find_hook(name)
    except ConfigError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the user's code; it is reported)
        module = name.partition(":")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return f"hooks: no module {module!r}"
        return f"hooks: {name!r} cannot be imported: {problem_of(error)[0]}"
    return None


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
    main(sys.argv[1], sys.argv[3:], json.loads(sys.argv[2]))

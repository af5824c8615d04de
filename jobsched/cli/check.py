"""Every problem of a configuration and of the task modules that it names."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jobsched.config import Config
from jobsched.errors import UnknownTask, nearest

__all__ = ["PATIENCE_S", "inspect_tasks"]

PATIENCE_S = 60.0
"""How long the imports of all task modules may take together."""

_PROBE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from jobsched.cli.probe import main; "
_PROBE += "main(sys.argv[2], sys.argv[4:], json.loads(sys.argv[3]))"


def inspect_tasks(config: Config, patience_s: float = PATIENCE_S) -> tuple[list[dict[str, Any]], list[str]]:
    """Import the task modules in a child process; return the tasks found, and the problems."""
    with tempfile.TemporaryDirectory(prefix="jobsched-check-") as folder:
        end = _run_probe(config, Path(folder), patience_s)
        answer = Path(folder, "answer")
        found = [json.loads(line) for line in answer.read_text().splitlines()] if answer.exists() else []
    modules, hooks = found[: len(config.tasks)], found[len(config.tasks) :]
    problems = [_import_problem(config, module) for module in modules if module["problem"]]
    problems += [f"{_where(config)}: {hook['problem']}" for hook in hooks if hook["problem"]]
    if end and len(modules) < len(config.tasks):
        problems.append(f"{_where(config)}: task module {config.tasks[len(modules)]!r} {end}")
    elif end and len(hooks) < len(config.hooks):
        problems.append(f"{_where(config)}: hook {config.hooks[len(hooks)]!r} {end}")
    tasks = [task for module in modules for task in module["tasks"]]
    problems += [_category_problem(config, task) for task in tasks if _has_wrong_category(config, task)]
    if not problems:  # a module that cannot be imported may have the tasks
        problems += _schedule_problems(config, {task["name"] for task in tasks})
    if not tasks and not problems:
        problems.append(f"{_where(config)}: no function with @task in {', '.join(config.tasks)}")
    return tasks, problems


def _run_probe(config: Config, folder: Path, patience_s: float) -> str:
    """Run the child; return how it ended if not by itself. Its output goes to files: a process that
    a module leaves behind must not keep us waiting.
    """
    path = json.dumps([str(config.directory), *sys.path])
    words = [path, str(folder / "answer"), json.dumps(config.hooks), *config.tasks]
    command = [sys.executable, "-c", _PROBE, *words]
    with (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter)
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
        )
    try:
        code = child.wait(patience_s)
    except subprocess.TimeoutExpired:
        return f"was not imported within {patience_s:g} s"
    finally:
        _end(child)
    said = (folder / "errors").read_text(errors="replace").strip()
    last = f": {said.splitlines()[-1]}" if said else ""
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return f"ended the process that imported it ({how}){last}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child and of its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _import_problem(config: Config, module: dict[str, Any]) -> str:
    name = module["module"]
    if module["missing"]:
        return f"{_where(config)}: tasks: no module {name!r}{nearest(name, _modules_in(config.directory))}"
    return f"{_where(config)}: tasks: module {name!r} cannot be imported: {module['problem']}"


def _modules_in(directory: Path) -> list[str]:
    """Return the modules that lie beside the configuration."""
    files = [path.stem for path in directory.glob("*.py")]
    return files + [path.parent.name for path in directory.glob("*/__init__.py")]


def _has_wrong_category(config: Config, task: dict[str, Any]) -> bool:
    return task["category"] is not None and task["category"] not in config.categories


def _category_problem(config: Config, task: dict[str, Any]) -> str:
    place = f"{task['file']}:{task['line']}" if task["file"] else task["name"]
    name = task["category"]
    return (
        f"{place}: task {task['name']!r} has the unknown category {name!r}{nearest(name, config.categories)}"
    )


def _schedule_problems(config: Config, known: set[str]) -> list[str]:
    return [
        f"{_where(config)}: schedules.{name}.task: {UnknownTask(declared.schedule.task, known)}"
        for name, declared in config.schedules.items()
        if declared.schedule.task not in known
    ]


def _where(config: Config) -> str:
    """Return the configuration's file as messages name it: relative where it lies beneath us."""
    return os.path.relpath(config.path) if config.path else "configuration"

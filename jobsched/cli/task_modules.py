"""The configured task modules, imported in this process to dispatch a task with its own defaults."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback

from jobsched import definition as tasks
from jobsched.config import Config
from jobsched.errors import TasksNotLoaded, UnknownTask

__all__ = ["know_task", "problem_of"]


def know_task(config: Config, name: str) -> None:
    """Make a task known to this process by importing its module, or else all configured ones.

    The configuration's folder is first on the path, as in a worker. Raises TasksNotLoaded,
    UnknownTask with the nearest name.
    """
    if name in tasks.known():
        return
    module = name.partition(":")[0]
    if str(config.directory) not in sys.path:
        sys.path.insert(0, str(config.directory))
    for wanted in [module] if module in config.tasks else config.tasks:
        _load(wanted)
    if name not in tasks.known():
        raise UnknownTask(name, tasks.known())


def _load(module: str) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints must not mix with our answer
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (the user's code)
        hint = "pass --category to dispatch without importing it"
        raise TasksNotLoaded(module, f"{problem_of(error)[1]}{hint}") from None


def problem_of(error: BaseException) -> tuple[str, str]:
    """Return what went wrong in an import in one line, and its traceback from the user's code on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_machinery(frame.filename)]
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(own)
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}: "
    else:
        place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    said = str(error.msg if isinstance(error, SyntaxError) else error)
    return f"{place}{type(error).__name__}{said and ': '}{said}", "".join(shown.format(chain=False))


def _is_machinery(filename: str) -> bool:
    """Return whether a frame belongs to the import system or to us."""
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)

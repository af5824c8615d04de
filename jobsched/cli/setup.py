"""The verbs before the first job: init, check."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from jobsched.amount import many
from jobsched.cli.check import inspect_tasks
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import note, print_json, say
from jobsched.cli.table import print_table
from jobsched.config import FILE_NAME, Config
from jobsched.errors import ConfigError, InvalidOption

__all__ = ["check", "init"]


def init(
    *,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write them.")] = Path(),
    json_output: JsonOption = False,
) -> None:
    """Write a categories.toml and a module of tasks to start from.

    Examples:
      jobsched init
      jobsched init shop

    """
    from jobsched.template import CATEGORIES_TOML, TASKS_PY  # noqa: PLC0415 (only this verb needs it)

    texts = {directory / FILE_NAME: CATEGORIES_TOML, directory / "tasks.py": TASKS_PY}
    for path in texts:
        if path.exists() or path.is_symlink():
            raise InvalidOption(f"{path} exists, nothing was written")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InvalidOption(f"cannot write to {directory}: {error.strerror}") from None
    if json_output:
        print_json({"written": [str(path) for path in texts]})
    else:
        _print_next(directory, list(texts))


def _print_next(directory: Path, written: list[Path]) -> None:
    for path in written:
        say(f"wrote {path}")
    say("\nnext:")
    if directory.resolve() != Path.cwd():
        say(f"  cd {shlex.quote(str(directory))}")
    say("  jobsched run")
    say("\nand, in another terminal there:")
    say("""  jobsched dispatch tasks:greet --payload '{"name": "Ada"}' --wait""")


def check(*, config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Find every problem of the configuration and its task modules.

    The modules are imported in a child process. Exit code 2 if there is any problem.

    Examples:
      jobsched check
      jobsched -c shop/categories.toml check --json

    """
    settings, tasks = None, list[dict[str, Any]]()
    try:
        settings = configuration(config)
        tasks, problems = inspect_tasks(settings)
    except ConfigError as error:
        problems = error.problems
    if json_output:
        print_json({"ok": not problems, "problems": problems, "tasks": tasks})
    else:
        for problem in problems:
            note(problem)
        if settings is not None:
            _print_found(settings, tasks, len(problems))
    if problems:
        raise typer.Exit(2)


def _print_found(config: Config, tasks: list[dict[str, Any]], problems: int) -> None:
    if tasks:
        print_table(
            ["task", "category", "priority", "retries", "timeout"],
            [_cells(task) for task in tasks],
            right=["priority", "retries", "timeout"],
            elastic=["task"],
        )
    if not problems:
        schedules = f", {many(len(config.schedules), 'schedule')}" if config.schedules else ""
        counts = f"{len(tasks)} tasks, {len(config.categories)} categories{schedules}"
        say(f"{config.path}: no problems; {counts}")


def _cells(task: dict[str, Any]) -> list[str]:
    """Return a task's line in the table; a dash is what the category's settings say."""
    retries, timeout = task["max_retries"], task["timeout_s"]
    return [
        task["name"],
        task["category"] or "-",
        str(task["priority"]),
        "-" if retries is None else str(retries),
        "-" if timeout is None else f"{timeout:g}s",
    ]

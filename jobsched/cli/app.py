"""The app: its verbs, what goes before them, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from jobsched.cli.options import ConfigOption, lower
from jobsched.cli.output import clean, note, say
from jobsched.cli.verbs import Verbs
from jobsched.errors import (
    ConfigError,
    InvalidOption,
    JobNotFound,
    JobschedError,
    NodeRunning,
    PayloadTooLarge,
    ScheduleNotFound,
    StoreError,
    TasksNotLoaded,
)

__all__ = ["app", "run_command_line"]

FAILED, BAD_INPUT, STORE_FAULT, INTERRUPTED = 1, 2, 74, 130
_BAD_INPUT = (
    InvalidOption,
    ConfigError,
    TasksNotLoaded,
    JobNotFound,
    ScheduleNotFound,
    PayloadTooLarge,
    NodeRunning,
)

# The base of typer's own errors. Older releases take it from click, newer ones have it themselves.
_UsageError: Any = typer.BadParameter.__mro__[2]

_HELP = """Durable job queues with a balanced worker pool. No server to install.

Exit codes: 0 done, 1 failed, 2 bad input, 74 fault of the store.

\b
Examples:
  jobsched init shop && cd shop
  jobsched run
  jobsched dispatch tasks:greet --payload '{"name": "Ada"}'
  jobsched -c shop/categories.toml stats
"""

app = typer.Typer(
    name="jobsched",
    cls=Verbs,
    rich_markup_mode=None,  # plain help: it is there at once, and can be copied
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True, help=_HELP)
def _before_the_verb(
    ctx: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    config: ConfigOption = None,  # noqa: ARG001 (the verbs inherit it)
) -> None:
    """Do what goes before the verb; without a verb, print the help."""
    if version:
        say(f"jobsched {_version()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())
        raise typer.Exit(BAD_INPUT)


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 (slow, and only for this)

    try:
        return metadata.version("jobsched")
    except metadata.PackageNotFoundError:
        return "from a source tree, not installed"


def run_command_line() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, like `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    sys.exit(code)


def _run() -> int:
    """Run the command; return its exit code, after a message for each error of ours."""
    try:
        return int(app(prog_name="jobsched", standalone_mode=False) or 0)
    except JobschedError as error:
        for line in error.problems if isinstance(error, ConfigError) else [str(error)]:
            note(line)
        return exit_code(error)
    except _UsageError as error:
        note(_usage(error))
        return int(error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED


def exit_code(error: JobschedError) -> int:
    """Return the exit code that an error of ours stands for."""
    if isinstance(error, _BAD_INPUT):
        return BAD_INPUT
    return STORE_FAULT if isinstance(error, StoreError) else FAILED


def _usage(error: Any) -> str:
    """Return a usage error of typer in our words, and where to read more."""
    context = getattr(error, "ctx", None)
    hint = f"\ntry: {context.command_path} --help" if context is not None else ""
    return clean(lower(error.format_message()), lines=True) + hint

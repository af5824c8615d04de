"""The built-in task `print`: prints a text."""

from __future__ import annotations

import builtins
import sys

from jobsched import task

__all__ = ["print"]


@task
def print(text: str, *, err: bool = False) -> None:  # noqa: A001 (what it does is what it is called)
    """Print a text to stdout, or to stderr: `jobsched show` has it with the attempt."""
    builtins.print(text, file=sys.stderr if err else sys.stdout, flush=True)

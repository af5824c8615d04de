"""The built-in task `echo`: prints a text."""

from __future__ import annotations

import sys

from jobsched import task

__all__ = ["echo"]


@task
def echo(text: str, *, err: bool = False) -> None:
    """Print a text to stdout, or to stderr: `jobsched show` has it with the attempt."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)

"""A question before what cannot be undone."""

from __future__ import annotations

import sys

import typer

from jobsched.cli.output import say

__all__ = ["ask", "is_asked"]


def is_asked(*, yes: bool) -> bool:
    """Return whether somebody is there to be asked, and did not say yes beforehand."""
    return not yes and sys.stdin.isatty()


def ask(question: str) -> None:
    """Have the user agree; without that the command ends here, with exit code 1."""
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        say("nothing was changed")
        raise typer.Exit(1)

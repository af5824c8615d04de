"""Findings: a label, what was found beside it, and beneath that the command that mends it."""

from __future__ import annotations

import shutil
import textwrap

from jobsched.cli.output import clean, console, is_terminal, say

__all__ = ["print_finding"]

_INDENT = " " * 11


def print_finding(label: str, lines: list[str], mend: str | None = None, style: str = "") -> None:
    """Print a finding: broken between words at a terminal, in as few lines as it has elsewhere."""
    shown = [clean(line) for line in lines]
    if not is_terminal():
        shown += [f"mend: {mend}"] * bool(mend)
        say(f"{label:<10} " + f"\n{_INDENT}".join(shown))
        return
    from rich.text import Text  # noqa: PLC0415 (slow to import)

    width = shutil.get_terminal_size().columns
    shown = [part for line in shown for part in _wrapped(line, width)]
    text = Text.assemble((f"{label:<10} ", style), f"\n{_INDENT}".join(shown))
    if mend:
        text.append(f"\n{_INDENT}{mend}", "bold")
    console().print(text, soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width - len(_INDENT), break_long_words=False, break_on_hyphens=False) or [""]

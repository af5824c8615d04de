"""The demo: Python's own standard library through three categories, and the balancer at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run_demo"]


def run_demo(
    config: Path | None,
    *,
    json_output: bool = False,
    files: int | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo; return 0 if every result agrees with the files, 1 if not, 130 when interrupted.

    `config` is a categories.toml with the demo's three categories, None for the one that comes with
    the package; its store is left alone. `files` takes that many of the files instead of all.
    Raises ConfigError.
    """
    # Workers import this package on their way to its tasks: they need none of the rest.
    from jobsched.demo.run import run  # noqa: PLC0415

    return run(config, json_output=json_output, limit=files, console=console)

"""The result of a job that a command has dispatched and waits for."""

from __future__ import annotations

import json
from typing import Any

import typer

from jobsched.cli.output import clean, note, plain, print_json, say
from jobsched.config import Config
from jobsched.dispatcher import Job
from jobsched.errors import JobFailed, ResultError

__all__ = ["answer_with_result"]


def answer_with_result(
    config: Config, handle: Job, about: dict[str, Any], limit: float | None, *, json_output: bool
) -> None:
    """Wait for a job, for `limit` seconds at most, and print its result; exit code 1 if there is none.

    `about` is what the JSON says of the job beside.
    """
    if not (config.store.path / "node.sock").exists():
        note(f"job {handle.id} is on disk, and starts when a node does: `jobsched run`")
    outcome: dict[str, Any] = {"result": None, "error": None, "traceback": None}
    try:
        outcome["result"] = handle.result(limit)
    except ResultError as error:
        outcome["error"] = str(error)
        if isinstance(error, JobFailed):
            outcome["traceback"] = error.traceback or None
    if json_output:
        print_json({**about, "state": handle.state(), **outcome})
    elif outcome["error"] is None:
        say(clean(json.dumps(plain(outcome["result"]), ensure_ascii=False)))
    else:
        note("\n".join(filter(None, [outcome["error"], outcome["traceback"]])))
    if outcome["error"] is not None:
        raise typer.Exit(1)

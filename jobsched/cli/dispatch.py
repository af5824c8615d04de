"""The verb dispatch: one job from options, or many from lines of JSON."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Annotated, Any

import typer

from jobsched.cli.dispatch_terms import limit_of, unique_of
from jobsched.cli.intake import Intake, arguments
from jobsched.cli.options import (
    ConfigOption,
    JsonOption,
    configuration,
    duration,
    json_value,
    payload_value,
)
from jobsched.cli.output import note, print_json, say
from jobsched.cli.result import answer_with_result
from jobsched.cli.task_modules import know_task
from jobsched.cli.when import moment
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher, Job, PreparedJob
from jobsched.errors import InvalidOption
from jobsched.job_id import format_id

__all__ = ["dispatch"]

_PROGRESS_S = 1.0

_Task = Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task: module:function.")]
_Category = Annotated[str | None, typer.Option(metavar="NAME", help="Default: the task's own.")]
_Delay = Annotated[str | None, typer.Option(metavar="5s", help="Start this much later.")]
_At = Annotated[str | None, typer.Option(metavar="ISO", help="Start at this time, given with its zone.")]
_Payload = Annotated[str | None, typer.Option(metavar="JSON", help="Arguments: an object, or an array.")]
_Arg = Annotated[list[str] | None, typer.Option(metavar="JSON", help="A positional argument; repeatable.")]
_Priority = Annotated[int | None, typer.Option(metavar="N", help="Higher first within the category.")]
_MaxRetries = Annotated[int | None, typer.Option(metavar="N", help="Retries after a failure.")]
_RunTimeout = Annotated[str | None, typer.Option(metavar="30s", help="A run that takes longer is ended.")]
_ExpiresIn = Annotated[
    str | None, typer.Option(metavar="10m", help="Cancel it if it has not started by then.")
]
_Unique = Annotated[
    str | None, typer.Option(metavar="KEY", help="Only one job of the task with this key at a time.")
]
_OnConflict = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="If the key is taken: keep (the other job), refuse or replace."),
]
_LimitKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Only so many jobs with this key run at once.")
]
_MaxRunning = Annotated[int | None, typer.Option(metavar="N", help="How many, with --limit-key. Default: 1.")]
_AtMostOnce = Annotated[
    bool, typer.Option("--at-most-once", help="Never run it again, whatever became of its run.")
]
_AllowUnknown = Annotated[
    bool,
    typer.Option("--allow-unknown", help="Take tasks that the node does not know: parked until it does."),
]
_Name = Annotated[str | None, typer.Option(metavar="TEXT", help="A label of the job.")]
_Id = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="Its id: the same again is no second job.")
]
_From = Annotated[
    str | None, typer.Option("--from", metavar="FILE", help="Jobs, one JSON object a line; - is stdin.")
]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")]
_Timeout = Annotated[str | None, typer.Option(metavar="30s", help="Wait no longer than this.")]


def dispatch(
    *,
    task: _Task = None,
    category: _Category = None,
    delay: _Delay = None,
    at: _At = None,
    payload: _Payload = None,
    arg: _Arg = None,
    priority: _Priority = None,
    max_retries: _MaxRetries = None,
    run_timeout: _RunTimeout = None,
    expires_in: _ExpiresIn = None,
    unique: _Unique = None,
    on_conflict: _OnConflict = None,
    limit_key: _LimitKey = None,
    max_running: _MaxRunning = None,
    at_most_once: _AtMostOnce = False,
    allow_unknown: _AllowUnknown = False,
    name: _Name = None,
    job_id: _Id = None,
    source: _From = None,
    wait: _Wait = False,
    timeout: _Timeout = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put a job, or many, on the queue. They are on disk when it returns.

    With --from, each line has the keys task, category, args, kwargs (or payload), delay, at,
    priority, max_retries, run_timeout, expires_in, unique, on_conflict, limit_key, max_running,
    at_most_once, name, id; TASK and --category stand for what a line leaves out. Batches of 10,000
    are dispatched whole or not at all; a file is checked to its end before the first. Where another
    job has the unique key, that job's id is printed, and said so on stderr.

    Examples:
      jobsched dispatch tasks:greet --payload '{"name": "Ada"}'
      jobsched dispatch tasks:word_count --arg '"tasks.py"' --wait
      jobsched dispatch tasks:greet --category mail --delay 5s --arg '"Ada"'
      jobsched dispatch tasks:greet --arg '"Ada"' --unique a --on-conflict refuse
      jobsched dispatch tasks:is_open --arg '"db"' --limit-key db --max-running 2
      jobsched dispatch --from jobs.jsonl
      make-jobs | jobsched dispatch tasks:greet --from - --json

    """
    options = {
        "--delay": delay,
        "--at": at,
        "--payload": payload,
        "--arg": arg,
        "--priority": priority,
        "--max-retries": max_retries,
        "--run-timeout": run_timeout,
        "--expires-in": expires_in,
        "--unique": unique,
        "--on-conflict": on_conflict,
        "--limit-key": limit_key,
        "--max-running": max_running,
        "--at-most-once": at_most_once or None,
        "--name": name,
        "--id": job_id,
        "--wait": wait or None,
        "--timeout": timeout,
    }
    settings = configuration(config)
    with contextlib.closing(Dispatcher(settings)) as dispatcher:
        if source is not None:
            _refuse_options(options)
            _dispatch_lines(
                settings, dispatcher, source, task, category,
                allow_unknown=allow_unknown, json_output=json_output,
            )  # fmt: skip
            return
        if task is None:
            raise InvalidOption("no task given: name one, or read jobs with --from FILE")
        limit = duration("--timeout", timeout)
        job = _prepare(settings, dispatcher, task, category, options)
        handle = dispatcher.dispatch_many([job], allow_unknown=allow_unknown)[0]
        _note_kept([job], [handle])
        if wait:
            answer_with_result(settings, handle, _object(job, handle), limit, json_output=json_output)
        elif json_output:
            print_json(_object(job, handle))
        else:
            say(handle.id)


def _refuse_options(options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value is not None:
            raise InvalidOption(f"{option} does not go with --from: the lines say it, each for its job")


def _prepare(
    config: Config, dispatcher: Dispatcher, task: str, category: str | None, options: dict[str, Any]
) -> PreparedJob:
    """Return the job that the options describe."""
    if category is None:
        know_task(config, task)
    args, kwargs = arguments(
        [json_value("--arg", text) for text in options["--arg"] or ()],
        {},
        payload_value(options["--payload"]),
    )
    return dispatcher.prepare(
        task,
        category,
        duration("--delay", options["--delay"]) or 0,
        at=moment("--at", options["--at"]),
        args=args,
        kwargs=kwargs,
        priority=options["--priority"],
        max_retries=options["--max-retries"],
        timeout=duration("--run-timeout", options["--run-timeout"]),
        expires_in=duration("--expires-in", options["--expires-in"]),
        unique=unique_of(options["--unique"], options["--on-conflict"], "--"),
        limit=limit_of(options["--limit-key"], options["--max-running"], "--"),
        at_most_once=options["--at-most-once"],
        name=options["--name"],
        id=options["--id"],
    )


def _dispatch_lines(
    config: Config,
    dispatcher: Dispatcher,
    source: str,
    task: str | None,
    category: str | None,
    *,
    allow_unknown: bool,
    json_output: bool,
) -> None:
    progress = _Progress(json_output=json_output)
    intake = Intake(
        dispatcher,
        know=lambda name: know_task(config, name),
        task=task,
        category=category,
        allow_unknown=allow_unknown,
        batch_done=progress.add,
    )
    try:
        intake.run(source)
    except BaseException:
        if progress.count or progress.kept:
            note(f"{progress.count:,} jobs were dispatched before this:")
        raise
    if not json_output:
        kept = f"; for {progress.kept:,} others stand that have their unique keys" if progress.kept else ""
        say(f"dispatched {progress.count:,} jobs{kept}")


class _Progress:
    """Counts what is on disk, and says so: at most once a second on stderr."""

    def __init__(self, *, json_output: bool) -> None:
        self.count = self.kept = 0
        self._json_output = json_output
        self._said_at = time.monotonic()

    def add(self, batch: list[PreparedJob], handles: list[Job]) -> None:
        """Take note of a batch that is on disk."""
        kept = _note_kept(batch, handles)
        self.kept += kept
        self.count += len(batch) - kept
        if self._json_output:
            print_json(*map(_object, batch, handles))
        now = time.monotonic()
        if now - self._said_at >= _PROGRESS_S:
            self._said_at = now
            self._say()

    def _say(self) -> None:
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"jobsched: {self.count:,} jobs dispatched{end}")
        sys.stderr.flush()


_NOTED = 20  # of the jobs of a batch whose unique key is taken


def _note_kept(batch: list[PreparedJob], handles: list[Job]) -> int:
    """Say which jobs stand for new ones whose unique key is taken; return how many they are."""
    kept = [handle.id for job, handle in zip(batch, handles, strict=True) if _is_kept(job, handle)]
    for job_id in kept[:_NOTED]:
        note(f"no new job: job {job_id} has the same unique key and stands for it")
    if len(kept) > _NOTED:
        note(f"and {len(kept) - _NOTED:,} more")
    return len(kept)


def _is_kept(job: PreparedJob, handle: Job) -> bool:
    return handle.id != format_id(job.id)


def _object(job: PreparedJob, handle: Job) -> dict[str, Any]:
    kept = {"kept": True} if _is_kept(job, handle) else {}
    return {"id": handle.id, "task": job.task, "category": job.category, **kept}

"""Jobs from lines of JSON: read, check, dispatch in batches."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from jobsched.cli.dispatch_terms import limit_of, unique_of
from jobsched.cli.options import duration, lower
from jobsched.cli.when import moment
from jobsched.dispatcher import Dispatcher, Job, PreparedJob
from jobsched.errors import InvalidOption, JobschedError, PayloadTooLarge, nearest

__all__ = ["BATCH_JOBS", "Intake", "JobLine", "arguments"]

BATCH_JOBS = 10_000
_BATCH_BYTES = 16 << 20  # well below what one request may hold
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JobLine(msgspec.Struct, kw_only=True):
    """One line: a job as the options of `jobsched dispatch` describe it."""

    task: str | None = None
    category: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    payload: list[Any] | dict[str, Any] | None = None
    delay: float | str = 0
    at: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    run_timeout: float | str | None = None
    expires_in: float | str | None = None
    unique: str | None = None
    on_conflict: str | None = None
    limit_key: str | None = None
    max_running: int | None = None
    at_most_once: bool | None = None
    name: str | None = None
    id: str | None = None


class Intake:
    """Dispatches the lines of one source. `know` makes a task known before its first job.

    `task` and `category` stand for what a line leaves out; `batch_done` hears of every commit.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        know: Callable[[str], None],
        task: str | None,
        category: str | None,
        allow_unknown: bool = False,
        batch_done: Callable[[list[PreparedJob], list[Job]], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._know = know
        self._task = task
        self._category = category
        self._allow_unknown = allow_unknown
        self._batch_done = batch_done

    def run(self, source: str) -> None:
        """Dispatch all lines of a file, or of stdin for ``-``.

        A regular file is checked to its end before the first job is dispatched; what can be read
        only once is dispatched by batches. Raises InvalidOption with ``source:line``.
        """
        if source == "-":
            self._dispatch("stdin", sys.stdin.buffer)
            return
        try:
            with Path(source).open("rb") as file:
                if stat.S_ISREG(Path(source).stat().st_mode):
                    for _ in self._prepared(source, file):
                        pass
                    file.seek(0)
                self._dispatch(source, file)
        except OSError as error:
            raise InvalidOption(f"cannot read {source}: {error.strerror}") from None

    def _dispatch(self, source: str, file: BinaryIO) -> None:
        batch: list[PreparedJob] = []
        size = 0
        for job in self._prepared(source, file):
            batch.append(job)
            size += len(job.args) + len(job.kwargs)
            if len(batch) >= BATCH_JOBS or size >= _BATCH_BYTES:
                self._send(batch)
                batch, size = [], 0
        self._send(batch)

    def _send(self, batch: list[PreparedJob]) -> None:
        self._batch_done(batch, self._dispatcher.dispatch_many(batch, allow_unknown=self._allow_unknown))

    def _prepared(self, source: str, file: BinaryIO) -> Iterator[PreparedJob]:
        for number, text in enumerate(file, 1):
            line = text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
            if not line.isspace():
                try:
                    yield self._prepare(line)
                except JobschedError as error:
                    raise _placed(error, f"{source}:{number}") from None

    def _prepare(self, text: bytes) -> PreparedJob:
        line = _read_line(text)
        task = line.task or self._task
        category = line.category or self._category
        if task is None:
            raise InvalidOption("no task: expected a key 'task'")
        if category is None:
            self._know(task)
        args, kwargs = arguments(line.args, line.kwargs, line.payload)
        delay = _seconds("delay", line.delay) or 0
        return self._dispatcher.prepare(
            task, category, delay, at=moment("at", line.at), args=args, kwargs=kwargs,
            priority=line.priority, max_retries=line.max_retries, name=line.name, id=line.id,
            timeout=_seconds("run_timeout", line.run_timeout),
            expires_in=_seconds("expires_in", line.expires_in),
            unique=unique_of(line.unique, line.on_conflict),
            limit=limit_of(line.limit_key, line.max_running),
            at_most_once=line.at_most_once,
        )  # fmt: skip


def arguments(
    args: list[Any], kwargs: dict[str, Any], payload: list[Any] | dict[str, Any] | None
) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments, the payload being more of either."""
    if payload is None:
        return args, kwargs
    if isinstance(payload, dict):
        if kwargs:
            raise InvalidOption("pass kwargs or a payload that is an object, not both")
        return args, payload
    if args:
        raise InvalidOption("pass positional arguments or a payload that is an array, not both")
    return payload, kwargs


def _seconds(key: str, value: float | str | None) -> float | None:
    """Return the seconds that a number or a text like 5s stands for."""
    return duration(key, value) if isinstance(value, str) else value


def _read_line(text: bytes) -> JobLine:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidOption(f"not JSON: {lower(str(error))}") from None
    if not isinstance(found, dict):
        raise InvalidOption("expected a JSON object with the keys of a job")
    for key in found:
        if key not in JobLine.__struct_fields__:
            raise InvalidOption(f"unknown key {key!r}{nearest(key, JobLine.__struct_fields__)}")
    try:
        return msgspec.convert(found, JobLine)
    except msgspec.ValidationError as error:
        raise InvalidOption(lower(str(error))) from None


def _placed(error: JobschedError, place: str) -> JobschedError:
    """Return an error of one line with the line's place."""
    if isinstance(error, InvalidOption | PayloadTooLarge):
        return InvalidOption(f"{place}: {error}")
    return error

"""A worker: one process that runs one job at a time, and never touches the store.

Jobs come over a socket pair, and for each of them a token through a pipe. The worker takes one
token before it starts a job; the node takes tokens back to revoke what has not started. So the
kernel arbitrates, and after a death the node knows which job was running. When the pipe is closed
the worker leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from jobsched import definition as tasks
from jobsched import wire
from jobsched.channel import Channel
from jobsched.clock import MICROSECONDS, Clock, SystemClock
from jobsched.codec import BadRecord, decode_arguments, decode_record, encode_result
from jobsched.config import CategoryConfig
from jobsched.context import CurrentJob, current
from jobsched.definition import TaskDefinition
from jobsched.errors import ArgumentError, JobschedError, PayloadTooLarge, UnknownTask
from jobsched.job import JobError, JobRecord, State, format_id
from jobsched.store.base import Claim, Outcome

__all__ = ["JobTimeout", "Worker"]

_MAX_CAUSE = 1000
_MAX_TRACEBACK = 64 << 10
_SOON_S = 0.001
_NOTHING = b"\xc0"  # the return value None


class JobTimeout(BaseException):
    """Raised inside a job when its time is up. Not an Exception: `except Exception` lets it pass."""


class Worker:
    """Takes jobs and runs them, until its tokens end."""

    def __init__(
        self,
        channel: Channel,
        tokens: int,
        categories: Mapping[str, CategoryConfig],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._channel = channel
        self._tokens = tokens
        self._categories = categories
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 (spreads retries, keeps no secret)
        self._runner: asyncio.Runner | None = None
        self._was_cut = False
        self._timed = 0  # the claim that a SIGALRM may interrupt; set and read by the main thread

    def run(self) -> None:
        """Run jobs until the node closes the token pipe, or is gone.

        Also until a job has been cut off by its timeout: it may have left anything half done, so
        another process takes over.
        """
        signal.signal(signal.SIGALRM, self._on_alarm)
        channel = self._channel
        pid = os.getpid()
        channel.send(wire.Ready(pid))
        with contextlib.suppress(ConnectionError):
            while token := os.read(self._tokens, 1):
                while channel.is_behind(token[0]) or not channel.claims:
                    channel.receive()
                outcome = self._run(channel.claims.popleft())
                if os.getpid() != pid:
                    os._exit(0)  # a child that the job has forked came back: it is no worker
                channel.send(wire.Done(outcome))
                if self._was_cut:
                    break
        if self._runner is not None:
            self._runner.close()

    def _run(self, claim: Claim) -> Outcome:
        """Run a job through its steps: read it, find its task, fit the arguments, call."""
        started = self._clock.now()
        try:
            record = decode_record(claim.record)
            definition = tasks.find(record.task)
            args, kwargs = decode_arguments(record)
            definition.check(args, kwargs)
            args, kwargs = definition.convert(args, kwargs)  # type: ignore[assignment]
        except (BadRecord, UnknownTask, ArgumentError) as error:
            return self._unfit(claim, started, error)
        try:
            value = self._call(claim, record, definition, args, kwargs)
        except BaseException as error:  # noqa: BLE001 (whatever user code raises is the job's failure)
            return self._failed(claim, record, definition, started, error)
        finally:
            _flush()
        return self._completed(claim, started, value)

    def _call(
        self,
        claim: Claim,
        record: JobRecord,
        definition: TaskDefinition,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        timeout_s = definition.timeout_s or self._settings(record).timeout_s
        here = CurrentJob(
            id=format_id(claim.job),
            task=record.task,
            category=record.category,
            attempt=claim.attempt,
            name=record.name,
        )
        token = current.set(here)
        try:
            if definition.is_async:
                return self._call_async(definition.function(*args, **kwargs), timeout_s)
            if timeout_s is None:
                return definition.function(*args, **kwargs)
            return self._call_timed(claim, definition, args, kwargs, timeout_s)
        finally:
            current.reset(token)

    def _call_timed(
        self,
        claim: Claim,
        definition: TaskDefinition,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout_s: float,
    ) -> Any:
        self._timed = claim.number
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        try:
            return definition.function(*args, **kwargs)
        except JobTimeout:
            raise JobTimeout(f"timed out after {timeout_s:g} s") from None
        finally:
            self._timed = 0
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_alarm(self, *_: object) -> None:
        if self._timed and self._channel.is_in_frame:
            signal.setitimer(signal.ITIMER_REAL, _SOON_S)
        elif self._timed:
            raise JobTimeout

    def _call_async(self, coroutine: Any, timeout_s: float | None) -> Any:
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def bounded() -> Any:
            try:
                async with asyncio.timeout(timeout_s) as bound:
                    return await coroutine
            except TimeoutError:
                if bound.expired():
                    raise JobTimeout(f"timed out after {timeout_s:g} s") from None
                raise

        return self._runner.run(bounded())

    # Outcomes.

    def _completed(self, claim: Claim, started: int, value: Any) -> Outcome:
        result, error = None, None
        try:
            packed = encode_result(value)
            result = None if packed == _NOTHING else packed
        except (ArgumentError, PayloadTooLarge) as problem:
            error = JobError(str(problem))
        return Outcome(claim.job, claim.number, State.COMPLETED, started, self._clock.now(), result, error)

    def _failed(
        self, claim: Claim, record: JobRecord, definition: TaskDefinition, started: int, error: BaseException
    ) -> Outcome:
        ended = self._clock.now()
        self._was_cut = isinstance(error, JobTimeout)
        why = JobError(_cause(error), _traceback(error))
        retries = next(
            count
            for count in (record.max_retries, definition.max_retries, self._settings(record).max_retries)
            if count is not None
        )
        if claim.attempt > retries:
            return Outcome(claim.job, claim.number, State.FAILED, started, ended, None, why)
        due = ended + int(definition.backoff.delay(claim.attempt, self._rng) * MICROSECONDS)
        return Outcome(claim.job, claim.number, State.SCHEDULED, started, ended, None, why, due)

    def _unfit(self, claim: Claim, started: int, error: JobschedError) -> Outcome:
        return Outcome(
            claim.job, claim.number, State.PARKED, started, self._clock.now(), None, JobError(str(error))
        )

    def _settings(self, record: JobRecord) -> CategoryConfig:
        return self._categories.get(record.category) or CategoryConfig()


def _cause(error: BaseException) -> str:
    """Return an error in one line, as the last line of a traceback has it."""
    lines = traceback.format_exception_only(error)
    return _encodable(lines[-1].strip()[:_MAX_CAUSE])


def _traceback(error: BaseException) -> str:
    """Return the traceback from the user's own frames on, its end kept where it is long."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "") == __name__:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return _encodable(text if len(text) <= _MAX_TRACEBACK else "… " + text[-_MAX_TRACEBACK:])


def _encodable(text: str) -> str:
    """Return a text without lone surrogates, which file names that are no UTF-8 bring in."""
    return text.encode("utf-8", "backslashreplace").decode()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()

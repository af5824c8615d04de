"""A worker: one process that runs one job at a time, and never touches the store.

Jobs come over a socket pair, and for each of them a token through a pipe. The worker takes one
token before it starts a job; the node takes tokens back to revoke what has not started. So the
kernel arbitrates, and after a death the node knows which job was running. When the pipe is closed
the worker leaves.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jobsched import definition as tasks
from jobsched import output, wire
from jobsched.board import Board
from jobsched.channel import Channel
from jobsched.clock import MICROSECONDS, Clock, SystemClock, from_micros
from jobsched.codec import BadRecord, decode_arguments, decode_record, encode_result
from jobsched.config import CategoryConfig
from jobsched.context import CurrentJob, current
from jobsched.definition import TaskDefinition
from jobsched.errors import ArgumentError, JobschedError, PayloadTooLarge, UnknownTask
from jobsched.interrupts import Interrupts
from jobsched.job import JobError, JobRecord, ParkedFor, State
from jobsched.memory_limit import MemoryLimit
from jobsched.redact import redact
from jobsched.store.base import Claim, Outcome
from jobsched.verdict import JobCancel, JobInterrupted, JobTimeout, RetryTerms, Snooze, judge

__all__ = ["Worker"]

_MAX_CAUSE = 1000
_MAX_TRACEBACK = 16 << 10
_NOTHING = b"\xc0"  # in the outbox: the outcome comes over the socket
_COMPLETED = State.COMPLETED  # to look it up takes as long as to make the outcome
_NANOSECONDS = 1_000_000_000
_SHORT = 200  # bytes of an outcome that goes to the outbox: as many as a worker holds ahead fit there
_TELL_S = 0.001

_encode = msgspec.msgpack.Encoder().encode
_UNFIT = {
    BadRecord: ParkedFor.UNREADABLE,
    UnknownTask: ParkedFor.UNKNOWN_TASK,
    ArgumentError: ParkedFor.BAD_ARGUMENTS,
}


class Worker:
    """Takes jobs and runs them, until its tokens end."""

    def __init__(
        self,
        channel: Channel,
        tokens: int,
        board: Board,
        categories: Mapping[str, CategoryConfig],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._channel = channel
        self._tokens = tokens
        self._board = board
        self._categories = categories
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 (spreads retries, keeps no secret)
        self._interrupts = Interrupts(board, lambda: channel.is_in_frame)
        self._memory = MemoryLimit()
        self._born_at = time.monotonic()
        self._pid = os.getpid()
        self._jobs = 0
        self._is_done = False
        self._more = select.poll()
        self._more.register(tokens, select.POLLIN)
        self._mark = self._told = 0
        self._told_at = 0.0

    def run(self) -> None:
        """Run jobs until the node closes the token pipe, or is gone.

        Also until a job has been cut off, as it may have left anything half done, or the worker has
        run for as long as its category's settings let it: another process takes over.
        """
        self._interrupts.install()
        output.keep_on(self._board)
        channel = self._channel
        channel.send(wire.Ready(self._pid))
        os.set_blocking(self._tokens, False)
        with contextlib.suppress(ConnectionError):
            while token := self._next_token():
                self._report(self._run(channel.next_claim(token[0])))
                if self._is_done:
                    break
            self._tell()
        self._interrupts.close()

    def _next_token(self) -> bytes:
        """Take a token; empty when there will be no more."""
        while True:
            try:
                return os.read(self._tokens, 1)
            except BlockingIOError:
                self._tell()
                self._more.poll()

    def _report(self, outcome: Outcome) -> None:
        """Put an outcome where the node finds it even if this process dies now, and tell it soon: at
        once if that was the last job here.
        """
        data = _encode(outcome)
        if len(data) <= _SHORT:
            self._mark = self._board.outbox.put(data)
        else:
            self._mark = self._board.outbox.put(_NOTHING)
            self._tell()
            self._channel.send(wire.Done(outcome))
        if not self._channel.claims or time.monotonic() - self._told_at > _TELL_S:
            self._tell()

    def _tell(self) -> None:
        """Tell the node how far the outbox is filled."""
        if self._mark != self._told:
            self._channel.send(wire.Filled(self._mark))
            self._told, self._told_at = self._mark, time.monotonic()

    def _run(self, claim: Claim) -> Outcome:
        """Run a job through its steps: read it, find its task, fit the arguments, call."""
        started = self._clock.now()
        self._jobs += 1
        try:
            record = decode_record(claim.record)
            definition = tasks.find(record.task)
            if record.by_name and not claim.has_terms and definition.has_terms:
                return self._to_be_claimed_again(claim, started, definition)
            args, kwargs = decode_arguments(record)
            definition.check(args, kwargs)
            arguments = definition.convert(args, kwargs)
        except (BadRecord, UnknownTask, ArgumentError) as error:
            return self._unfit(claim, started, error)
        settings = self._categories.get(record.category) or CategoryConfig()
        self._interrupts.begin()
        self._memory.apply(settings.max_memory_bytes)
        try:
            value = self._call(claim, record, definition, settings, arguments)
        except BaseException as error:  # noqa: BLE001 (whatever user code raises is the job's failure)
            outcome = self._failed(claim, _retry_terms(record, definition, settings), started, error)
        else:
            outcome = self._completed(claim, started, value)
        self._board.clear()
        self._is_done = self._is_done or self._is_worn(settings)
        return outcome

    def _call(
        self,
        claim: Claim,
        record: JobRecord,
        definition: TaskDefinition,
        settings: CategoryConfig,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
    ) -> Any:
        limit_s = record.timeout_s or definition.timeout_s or settings.timeout_s
        if limit_s is None:
            self._board.post(claim.number, time.monotonic_ns())
        else:
            self._post(claim, limit_s, definition, settings, _retry_terms(record, definition, settings))
        deadline = from_micros(self._clock.now() + int(limit_s * MICROSECONDS)) if limit_s else None
        here = CurrentJob(
            claim.job, record.task, record.category, claim.attempt, record.name, deadline,
            claim.number, self._interrupts.asks, self._keep, record.fired_by,
        )  # fmt: skip
        args, kwargs = arguments
        token = current.set(here)
        try:
            if definition.is_async:
                coroutine = definition.function(*args, **kwargs)
                return self._interrupts.call_async(claim.number, limit_s, coroutine)
            return self._interrupts.call(claim.number, limit_s, definition.function, *args, **kwargs)
        finally:
            if os.getpid() != self._pid:
                # A child that the job has forked came back: it is no worker, and the board is not its.
                output.flush()
                os._exit(0)
            current.reset(token)

    def _post(
        self,
        claim: Claim,
        limit_s: float,
        definition: TaskDefinition,
        settings: CategoryConfig,
        terms: RetryTerms,
    ) -> None:
        """Say on the board until when it runs, and what is to become of it if it has to be killed."""
        verdict = judge(JobTimeout(), claim.attempt, terms, self._rng)
        retry_us = int(verdict.after_s * MICROSECONDS) if verdict.state is State.SCHEDULED else -1
        kill_after_s = definition.kill_after_s
        if kill_after_s is None:
            kill_after_s = settings.kill_after_s
        if kill_after_s is None:
            kill_after_s = min(10.0, max(0.5, limit_s / 2))
        now = time.monotonic_ns()
        limit_us = round(limit_s * MICROSECONDS)
        kill_at = now + limit_us * 1000 + round(kill_after_s * _NANOSECONDS)
        self._board.post(claim.number, now, kill_at, retry_us, limit_us)

    def _keep(self, text: str) -> None:
        self._board.write(f"{text}\n".encode(errors="backslashreplace"))

    def _is_worn(self, settings: CategoryConfig) -> bool:
        """Say whether another process should take over."""
        most, age_s = settings.max_jobs_per_worker, settings.max_worker_age_s
        return (
            (most is not None and self._jobs >= most)
            or (age_s is not None and time.monotonic() - self._born_at >= age_s)
            or (settings.max_memory_bytes is not None and self._memory.is_nearly_reached)
        )

    # Outcomes.

    def _log(self) -> str:
        """Return what the job has written, all of it passed on."""
        output.flush()
        return _encodable(redact(self._board.output())) if self._board.has_output else ""

    def _completed(self, claim: Claim, started: int, value: Any) -> Outcome:
        if self._interrupts.has_seen:
            return self._cancelled(claim, started, JobError("cancelled: it stopped by itself"))
        result, error = None, None
        if value is not None:
            try:
                result = encode_result(value)
            except (ArgumentError, PayloadTooLarge) as problem:
                error = JobError(str(problem))
        ended = self._clock.now()
        return Outcome(claim.job, claim.number, _COMPLETED, started, ended, result, error, 0, self._log())

    def _failed(self, claim: Claim, terms: RetryTerms, started: int, error: BaseException) -> Outcome:
        self._is_done = isinstance(error, JobInterrupted)
        if isinstance(error, JobCancel):
            why = JobError("cancelled: by an exception raised in it", _traceback(error))
            return self._cancelled(claim, started, why)
        if self._interrupts.has_seen:
            why = JobError("cancelled: it stopped by itself", _traceback(error))
            return self._cancelled(claim, started, why)
        ended = self._clock.now()
        verdict = judge(error, claim.attempt, terms, self._rng)
        cause = JobError(_cause(error), _traceback(error))
        if verdict.state is State.CANCELLED:
            cause = JobError(_encodable(redact(f"discarded: {error}"[:_MAX_CAUSE])))
        return Outcome(
            claim.job, claim.number, verdict.state, started, ended,
            error=None if isinstance(error, Snooze) else cause,
            due_at=ended + int(verdict.after_s * MICROSECONDS) if verdict.state is State.SCHEDULED else 0,
            log=self._log(), unspent=verdict.unspent,
        )  # fmt: skip

    def _cancelled(self, claim: Claim, started: int, why: JobError) -> Outcome:
        now = self._clock.now()
        return Outcome(claim.job, claim.number, State.CANCELLED, started, now, error=why, log=self._log())

    def _unfit(self, claim: Claim, started: int, error: JobschedError) -> Outcome:
        return Outcome(
            claim.job, claim.number, State.PARKED, started, self._clock.now(),
            error=JobError(str(error)), unspent=True, parked_for=_UNFIT[type(error)],
        )  # fmt: skip

    def _to_be_claimed_again(self, claim: Claim, started: int, definition: TaskDefinition) -> Outcome:
        """Have a job claimed under its task's terms, which its dispatcher did not know."""
        return Outcome(
            claim.job, claim.number, State.PENDING, started, started,
            unspent=True, terms=definition.terms(),
        )  # fmt: skip


def _retry_terms(record: JobRecord, definition: TaskDefinition, settings: CategoryConfig) -> RetryTerms:
    """Return how often the job may be tried again: by the first that says so."""
    counts = (record.max_retries, definition.max_retries, settings.max_retries)
    retries = next(count for count in counts if count is not None)
    return RetryTerms(retries, definition.backoff, definition.retry_rules)


def _cause(error: BaseException) -> str:
    """Return an error in one line, as the last line of a traceback has it."""
    lines = traceback.format_exception_only(error)
    return _encodable(redact(lines[-1].strip()[:_MAX_CAUSE]))


def _traceback(error: BaseException) -> str:
    """Return the traceback from the user's own frames on, its end kept where it is long."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "") in _OURS:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return _encodable(redact(text if len(text) <= _MAX_TRACEBACK else "… " + text[-_MAX_TRACEBACK:]))


_OURS = (__name__, Interrupts.__module__, "asyncio.runners", "asyncio.base_events")


def _encodable(text: str) -> str:
    """Return a text without lone surrogates, which file names that are no UTF-8 bring in."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Running a claimed job where one stands: read it, find its task, fit the arguments, call, judge.

A worker does so in a process of its own, the testing kit in that of the test. What differs is who
may interrupt the job and where its output goes: these are handed in.
"""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from jobsched import definition as tasks
from jobsched import output
from jobsched.board import Board
from jobsched.carried import Carried
from jobsched.clock import MICROSECONDS, Clock, from_micros
from jobsched.codec import BadRecord, decode_arguments, decode_record, encode_result
from jobsched.config import CategoryConfig
from jobsched.context import CurrentJob, current
from jobsched.definition import TaskDefinition
from jobsched.errors import ArgumentError, JobschedError, PayloadTooLarge, UnknownTask
from jobsched.job import JobError, JobRecord, ParkedFor, State
from jobsched.redact import redact
from jobsched.store.base import Claim, Outcome
from jobsched.verdict import JobCancel, JobInterrupted, JobTimeout, RetryTerms, Snooze, judge

__all__ = ["Interrupter", "Runner"]

_MAX_CAUSE = 1000
_MAX_TRACEBACK = 16 << 10
_COMPLETED = State.COMPLETED  # to look it up takes as long as to make the outcome
_NANOSECONDS = 1_000_000_000

_UNFIT = {
    BadRecord: ParkedFor.UNREADABLE,
    UnknownTask: ParkedFor.UNKNOWN_TASK,
    ArgumentError: ParkedFor.BAD_ARGUMENTS,
}


class Interrupter(Protocol):
    """What ends a run from outside its code: when its time is up, or it is cancelled."""

    has_seen: bool
    """Whether the job has been told that it is cancelled."""

    def begin(self) -> None:
        """Forget what the last job did."""
        ...

    def asks(self, claim: int) -> bool:
        """Tell the job whether it is cancelled."""
        ...

    def call(
        self, claim: int, limit_s: float | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a plain function. Raises JobTimeout, JobCancel, and what the function raises."""
        ...

    def call_async(self, claim: int, limit_s: float | None, coroutine: Any) -> Any:
        """Run a coroutine. Raises what `call` does."""
        ...


class Runner:
    """Runs jobs one at a time. `prepare` is called with the category's settings before user code runs.

    `was_cut_off` says that the last run was interrupted: it may have left anything half done.
    """

    def __init__(
        self,
        categories: Mapping[str, CategoryConfig],
        board: Board,
        interrupts: Interrupter,
        *,
        clock: Clock,
        rng: random.Random,
        prepare: Callable[[CategoryConfig], None],
    ) -> None:
        self._categories = categories
        self._board = board
        self._interrupts = interrupts
        self._clock = clock
        self._rng = rng
        self._prepare = prepare
        self._pid = os.getpid()
        self._carried = Carried()  # what the running job dispatches with its completion
        # Frames that a job's traceback leaves out where it begins with them.
        self._ours = (__name__, type(interrupts).__module__, "asyncio.runners", "asyncio.base_events")
        self.was_cut_off = False

    def run(self, claim: Claim) -> Outcome:
        """Run a job through its steps: read it, find its task, fit the arguments, call."""
        started = self._clock.now()
        self.was_cut_off = False
        try:
            record = decode_record(claim.record)
            definition = tasks.find(record.task)
            if record.by_name and not claim.has_terms and definition.has_terms:
                return self._to_be_claimed_again(claim, started, definition)
            arguments = definition.fit(*decode_arguments(record))
        except (BadRecord, UnknownTask, ArgumentError) as error:
            return self._unfit(claim, started, error)
        settings = self._categories.get(record.category) or CategoryConfig()
        self._carried = Carried()
        self._interrupts.begin()
        self._prepare(settings)
        try:
            value = self._call(claim, record, definition, settings, arguments)
        except BaseException as error:  # noqa: BLE001 (whatever user code raises is the job's failure)
            outcome = self._failed(claim, _retry_terms(record, definition, settings), started, error)
        else:
            outcome = self._completed(claim, started, value)
        self._board.clear()
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
            claim.number, self._interrupts.asks, self._keep, self._carried, record.fired_by,
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
        outcome = Outcome(claim.job, claim.number, _COMPLETED, started, ended, result, error, 0, self._log())
        if self._carried:
            outcome = msgspec.structs.replace(outcome, carried=self._carried.joined())
        return outcome

    def _failed(self, claim: Claim, terms: RetryTerms, started: int, error: BaseException) -> Outcome:
        self.was_cut_off = isinstance(error, JobInterrupted)
        if isinstance(error, JobCancel):
            why = JobError("cancelled: by an exception raised in it", self._traceback(error))
            return self._cancelled(claim, started, why)
        if self._interrupts.has_seen:
            why = JobError("cancelled: it stopped by itself", self._traceback(error))
            return self._cancelled(claim, started, why)
        ended = self._clock.now()
        verdict = judge(error, claim.attempt, terms, self._rng)
        cause = JobError(_cause(error), self._traceback(error))
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

    def _traceback(self, error: BaseException) -> str:
        """Return the traceback from the user's own frames on, its end kept where it is long."""
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "") in self._ours:
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        return _encodable(redact(text if len(text) <= _MAX_TRACEBACK else "… " + text[-_MAX_TRACEBACK:]))


def _retry_terms(record: JobRecord, definition: TaskDefinition, settings: CategoryConfig) -> RetryTerms:
    """Return how often the job may be tried again: by the first that says so."""
    counts = (record.max_retries, definition.max_retries, settings.max_retries)
    retries = next(count for count in counts if count is not None)
    return RetryTerms(retries, definition.backoff, definition.retry_rules)


def _cause(error: BaseException) -> str:
    """Return an error in one line, as the last line of a traceback has it."""
    lines = traceback.format_exception_only(error)
    return _encodable(redact(lines[-1].strip()[:_MAX_CAUSE]))


def _encodable(text: str) -> str:
    """Return a text without lone surrogates, which file names that are no UTF-8 bring in."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Ending a job by the clock of the test: no signals, so that a test may use its own, in any thread.

A run takes as long as the test says it does, by `clock.advance` inside it, mostly in a stub of what is
slow. That is the only place where time passes, so it is there that its limit is reached.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobsched.board import Board
from jobsched.clock import MICROSECONDS
from jobsched.testing.clock import StandingClock
from jobsched.verdict import JobCancel, JobInterrupted, JobTimeout

__all__ = ["LocalInterrupts"]

_INSIST_S = 2.0  # that a job which asks has to end by itself, as with a worker


class LocalInterrupts:
    """What may end the runs of one worker of the testing kit.

    `escaped` is what a run has raised that is the test's own business: Ctrl-C, or what a test framework
    raises to end the test.
    """

    def __init__(self, board: Board, clock: StandingClock) -> None:
        self._board = board
        self._clock = clock
        self._claim = 0
        self._limit_s: float | None = None
        self._deadline: float | None = None  # monotonic
        self._asks = False
        self._asked_at = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._runner: asyncio.Runner | None = None
        self.has_seen = False
        self.escaped: BaseException | None = None

    def begin(self) -> None:
        """Forget what the last job did."""
        self._asks = self.has_seen = False
        self.escaped = None

    def asks(self, claim: int) -> bool:
        """Tell the job whether it is cancelled."""
        self._asks = True
        stage = self._board.cancel_stage(claim)
        self.has_seen = self.has_seen or stage > 0
        return stage > 0

    def call(
        self, claim: int, limit_s: float | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a plain function. Raises JobTimeout, JobCancel, and what the function raises."""
        self._start(claim, limit_s)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self._note(error)
            raise
        finally:
            self._claim = 0

    def call_async(self, claim: int, limit_s: float | None, coroutine: Any) -> Any:
        """Run a coroutine. Raises what `call` does."""
        self._start(claim, limit_s)

        async def bounded() -> Any:
            self._task = asyncio.current_task()
            try:
                return await coroutine
            except asyncio.CancelledError as error:
                if (end := self._end()) is not None:
                    raise end from error
                raise
            except BaseException as error:
                self._note(error)
                raise

        try:
            return self._run(bounded())
        finally:
            self._claim, self._task = 0, None

    def _run(self, coroutine: Any) -> Any:
        context = contextvars.copy_context()
        if _is_in_loop():  # of the test, or of a job that waits for this one
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(context.run, asyncio.run, coroutine).result()
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine, context=context)

    def _start(self, claim: int, limit_s: float | None) -> None:
        self._claim, self._limit_s = claim, limit_s
        self._deadline = None if limit_s is None else self._clock.monotonic() + limit_s

    def _note(self, error: BaseException) -> None:
        """Remember what is none of the job's own failures."""
        own = (Exception, JobInterrupted, SystemExit, GeneratorExit, asyncio.CancelledError)
        if not isinstance(error, own):
            self.escaped = error

    def pass_us(self, micros: int) -> None:
        """Let time pass for the run, up to its limit. Raises what ends it then."""
        rest = micros
        if self._deadline is not None:
            rest = max(0, min(micros, round((self._deadline - self._clock.monotonic()) * MICROSECONDS)))
        self._clock.pass_us(rest)
        self.check()

    def cancel(self, *, here: bool) -> None:
        """Ask the run to end. Raises what ends it if it is its own code that asks `here`."""
        self._asked_at = self._clock.monotonic()
        self._board.ask_cancel(self._claim, 1)
        if self._task is not None and not self._asks:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif here:
            self.check()

    def check(self) -> None:
        """Raise what ends the run, if anything does now; in an `async def` as an `await` would."""
        end = self._end()
        if end is not None:
            raise end if self._task is None else asyncio.CancelledError

    def _end(self) -> JobInterrupted | None:
        if self._claim and self._board.cancel_stage(self._claim):
            insists = self._clock.monotonic() - self._asked_at >= _INSIST_S
            if insists or not self._asks:
                return JobCancel("cancelled")
        if self._claim and self._deadline is not None and self._clock.monotonic() >= self._deadline:
            return JobTimeout(f"timed out after {self._limit_s:g} s")
        return None

    def close(self) -> None:
        """Close the event loop."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

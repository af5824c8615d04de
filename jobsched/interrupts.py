"""Ending a job from outside its code: its time is up, or it is to be cancelled.

For a plain function an exception is raised where it stands, by a signal's handler and only while
user code runs; an `async def` has its asyncio task cancelled. A job that is stuck in C code sees
neither: the node kills it a little later.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobsched.board import Board
from jobsched.verdict import JobCancel, JobTimeout

__all__ = ["Interrupts"]

_SOON_S = 0.001
_AGAIN_S = 0.05
_INSIST = 2  # the stage of a cancellation that does not wait for the job to ask


class Interrupts:
    """The signals of one worker. All but `asks` belongs to its main thread.

    `is_busy` says that an exception now would tear a frame: it is raised a moment later.
    """

    def __init__(self, board: Board, is_busy: Callable[[], bool]) -> None:
        self._board = board
        self._is_busy = is_busy
        self._claim = 0  # the run that may be interrupted now
        self._deadline: float | None = None
        self._limit_s = 0.0
        self._is_async = False
        self._task: asyncio.Task[Any] | None = None
        self._runner: asyncio.Runner | None = None
        self._asks = False  # the job looks for itself whether it is cancelled; any thread of it
        self.has_seen = False  # and has been told that it is

    def install(self) -> None:
        """Take the two signals."""
        for number in (signal.SIGALRM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM, signal.SIGUSR1))

    def begin(self) -> None:
        """Forget what the last job did."""
        self._asks = self.has_seen = False

    def asks(self, claim: int) -> bool:
        """Tell the job whether it is cancelled."""
        stage = self._board.cancel_stage(claim)
        if claim == self._claim:  # and no thread that an earlier job has left
            self._asks = True
            self.has_seen = self.has_seen or stage > 0
        return stage > 0

    def call(
        self, claim: int, limit_s: float | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call a plain function: it, and nothing else, may be interrupted. Raises JobTimeout, JobCancel,
        and what the function raises.
        """
        if limit_s is not None:
            return self._call_limited(claim, limit_s, functools.partial(function, *args, **kwargs))
        self._deadline = None
        self._claim = claim
        try:
            if self._board.cancel_stage(claim):
                raise JobCancel("cancelled before it began")
            return function(*args, **kwargs)
        finally:
            self._claim = 0

    def _call_limited(self, claim: int, limit_s: float, function: Callable[[], Any]) -> Any:
        self.install()  # anew: an earlier job may have taken the handlers away
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self._claim = claim
        try:
            _wake_in(limit_s)
            if self._board.cancel_stage(claim):
                raise JobCancel("cancelled before it began")
            return function()
        finally:
            self._claim = 0
            _let_sleep()

    def call_async(self, claim: int, limit_s: float | None, coroutine: Any) -> Any:
        """Run a coroutine on the worker's event loop. Raises what `call` does."""
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def bounded() -> Any:
            self._task = asyncio.current_task()
            try:
                async with asyncio.timeout(limit_s) as bound:
                    return await coroutine
            except TimeoutError as error:
                if bound.expired():  # the cause says where it stood
                    raise JobTimeout(f"timed out after {limit_s:g} s") from error.__cause__
                raise
            except asyncio.CancelledError as error:
                if self._board.cancel_stage(claim):
                    raise JobCancel("cancelled") from error
                raise

        self._is_async, self._deadline = True, None  # asyncio keeps the time
        self._claim = claim
        try:
            if self._board.cancel_stage(claim):
                coroutine.close()
                raise JobCancel("cancelled before it began")
            # The runner's own context is that in which its first job ran.
            return self._runner.run(bounded(), context=contextvars.copy_context())
        finally:
            self._claim, self._task, self._is_async = 0, None, False

    def _on_signal(self, *_: object) -> None:
        claim = self._claim
        if claim and self._is_busy():
            _wake_in(_SOON_S)
            return
        _let_sleep()
        stage = self._board.cancel_stage(claim) if claim else 0
        if stage and (stage >= _INSIST or not self._asks):
            if not self._is_async:
                raise JobCancel("cancelled")
            if self._task is None:  # it is about to begin
                _wake_in(_SOON_S)
            else:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif claim and self._deadline is not None:
            rest = self._deadline - time.monotonic()
            if rest <= 0:
                raise JobTimeout(f"timed out after {self._limit_s:g} s")
            _wake_in(rest)

    def close(self) -> None:
        """Close the event loop. Threads that its jobs have left go on until the process ends."""
        if self._runner is not None:
            self._runner.get_loop().set_default_executor(ThreadPoolExecutor())  # none that has any
            self._runner.close()


def _wake_in(seconds: float) -> None:
    """Have the alarm come, and again until it is taken away: Python sees one that arrives on the way
    into a blocking call only at the end of that call.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)


def _let_sleep() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)

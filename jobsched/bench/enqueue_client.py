"""A client of `bench enqueue`: a process that dispatches one job after another."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Self, cast

from jobsched.bench.ground import unheard_interrupts
from jobsched.bench.tasks import nothing
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError

__all__ = ["Client", "Span"]

_NO_JOB = bytes(16)
_START_S = 30.0
_END_S = 600.0


class Client:
    """A process that waits for `start`, as a context that ends with it."""

    def __init__(self, config: Config, jobs: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_dispatch, args=(far_end, config, jobs), daemon=True)
        resource_tracker.ensure_running()  # when it starts it lets interrupts through again
        with unheard_interrupts():
            self._process.start()
        far_end.close()

    def await_ready(self) -> None:
        """Wait until it is connected. Raises JobschedError if it is not within 30 s."""
        self._receive(_START_S)

    def start(self) -> None:
        """Have it dispatch."""
        self._pipe.send(None)

    def times(self) -> Span:
        """Return when it began and how long each call took. Raises JobschedError if it failed."""
        return cast("Span", self._receive(_END_S))

    def _receive(self, within_s: float) -> object:
        try:
            if self._pipe.poll(within_s):
                return self._pipe.recv()
        except EOFError:
            raise JobschedError("a client of the benchmark has died; its message is above") from None
        raise JobschedError(f"a client of the benchmark has said nothing for {within_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()
        self._process.close()


Span = tuple[float, list[float]]
"""When a client began, on the machine's monotonic clock, and how many seconds each call took."""


def _dispatch(pipe: Connection, config: Config, jobs: int) -> None:
    """Be the process."""
    dispatcher = Dispatcher(config)
    dispatcher.look(_NO_JOB)  # so that it is connected
    pipe.send(None)
    with contextlib.suppress(EOFError):  # the benchmark was interrupted
        pipe.recv()
        began = time.monotonic()
        calls: list[float] = []
        for _ in range(jobs):
            called = time.monotonic()
            dispatcher.dispatch(nothing)
            calls.append(time.monotonic() - called)
        pipe.send((began, calls))
    dispatcher.close()

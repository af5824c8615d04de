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
from collections.abc import Mapping

import msgspec

from jobsched import output, wire
from jobsched.board import Board
from jobsched.channel import Channel
from jobsched.clock import Clock, SystemClock
from jobsched.config import CategoryConfig
from jobsched.interrupts import Interrupts
from jobsched.memory_limit import MemoryLimit
from jobsched.runner import Runner
from jobsched.store.base import Claim, Outcome

__all__ = ["Worker"]

_NOTHING = b"\xc0"  # in the outbox: the outcome comes over the socket
_SHORT = 200  # bytes of an outcome that goes to the outbox: as many as a worker holds ahead fit there
_TELL_S = 0.001

_encode = msgspec.msgpack.Encoder().encode


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
        self._interrupts = Interrupts(board, lambda: channel.is_in_frame)
        self._memory = MemoryLimit()
        self._runner = Runner(
            categories,
            board,
            self._interrupts,
            clock=clock or SystemClock(),
            rng=random.Random(),  # noqa: S311 (spreads retries, keeps no secret)
            prepare=self._prepare,
        )
        self._settings: CategoryConfig | None = None  # of the job that runs, once it does
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
        self._jobs += 1
        self._settings = None
        outcome = self._runner.run(claim)
        if self._settings is not None:
            self._is_done = self._runner.was_cut_off or self._is_worn(self._settings)
        return outcome

    def _prepare(self, settings: CategoryConfig) -> None:
        self._settings = settings
        self._memory.apply(settings.max_memory_bytes)

    def _is_worn(self, settings: CategoryConfig) -> bool:
        """Say whether another process should take over."""
        most, age_s = settings.max_jobs_per_worker, settings.max_worker_age_s
        return (
            (most is not None and self._jobs >= most)
            or (age_s is not None and time.monotonic() - self._born_at >= age_s)
            or (settings.max_memory_bytes is not None and self._memory.is_nearly_reached)
        )

"""A worker of the testing kit: runs jobs where the test runs, through the code of every worker."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Mapping

from jobsched.board import Board
from jobsched.config import CategoryConfig
from jobsched.runner import Runner
from jobsched.store.base import Claim, Outcome
from jobsched.testing.clock import StandingClock
from jobsched.testing.interrupts import LocalInterrupts
from jobsched.testing.output import KeptOutput
from jobsched.worker_link import Doom

__all__ = ["LocalWorker"]


class LocalWorker:
    """Runs one job at a time. A job that waits for another one has that run by the next worker."""

    doom: Doom | None = None

    def __init__(
        self,
        number: int,
        categories: Mapping[str, CategoryConfig],
        clock: StandingClock,
        rng: random.Random,
    ) -> None:
        self.number = number
        self.board = Board.new()
        self.interrupts = LocalInterrupts(self.board, clock)
        self.claim: Claim | None = None  # what it runs
        self.category = ""
        self._runner = Runner(
            categories, self.board, self.interrupts, clock=clock, rng=rng, prepare=lambda _: None
        )

    def run(self, claim: Claim) -> Outcome:
        """Run a job; what it prints is kept with the attempt, and printed."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(KeptOutput(sys.stdout, self.board)))
            stack.enter_context(contextlib.redirect_stderr(KeptOutput(sys.stderr, self.board)))
            return self._runner.run(claim)

    def close(self) -> None:
        """Let go of what it holds."""
        self.interrupts.close()
        self.board.close()

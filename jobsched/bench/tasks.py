"""What the benchmarks run."""

import time

from jobsched.api import task

__all__ = ["nothing", "rest"]


@task(category="bench")
def nothing() -> None:
    """Do nothing, so that what is measured is the pool."""


@task(category="bench")
def rest(seconds: float) -> None:
    """Take a worker's time, and leave the processor to others."""
    time.sleep(seconds)

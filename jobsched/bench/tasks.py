"""What the benchmarks run."""

import time

from jobsched.api import task

__all__ = ["nothing", "rest", "work"]


@task(category="bench")
def nothing() -> None:
    """Do nothing, so that what is measured is the pool."""


@task(category="bench")
def rest(seconds: float) -> None:
    """Take a worker's time, and leave the processor to others."""
    time.sleep(seconds)


@task(category="bench", max_retries=0)
def work(seconds: float, fails: bool = False) -> None:  # noqa: FBT001, FBT002 (jobs take plain values)
    """Take so long without using a CPU, and then fail if told to."""
    if seconds:
        time.sleep(seconds)
    if fails:
        raise RuntimeError("as the load wants it")

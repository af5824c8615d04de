"""What the benchmarks run."""

from jobsched.api import task

__all__ = ["nothing"]


@task(category="bench")
def nothing() -> None:
    """Do nothing, so that what is measured is the pool."""

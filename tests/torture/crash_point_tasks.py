"""Tasks under crash points, beside those of tasks.py: they note their runs there."""

import os
import time

from tasks import HERE, note, recorded_alone

from jobsched import Backoff, current_job, dispatch, task


@task
def once(label: str) -> str:
    with recorded_alone(label):
        pass
    return label


@task(max_retries=2, backoff=Backoff(base=0.02, jitter=0))
def fail_first(label: str) -> None:
    with recorded_alone(label):
        pass
    if current_job().attempt == 1:
        raise ValueError(label)


@task
def die_first(label: str) -> None:
    """End the worker at the first run."""
    if not (HERE / f"died-{label}").exists():
        (HERE / f"died-{label}").touch()
        os._exit(3)
    with recorded_alone(label):
        pass


@task
def parent(label: str) -> None:
    """Dispatch another job through the worker's own way."""
    with recorded_alone(label):
        child = f"{label}-child-{time.monotonic_ns()}"  # run again, it dispatches another one
        job = dispatch("crash_point_tasks:once", "reports", args=(child,))
        note("child", job.id)

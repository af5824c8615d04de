"""The tasks of the scenario that steps the clock; a copy lies beside each project's tasks.py."""

import time

from tasks import note

from jobsched import Backoff, current_job, task


@task(timeout=20)
def ticked(seconds: float = 0.0) -> None:
    note("start", current_job().id)
    time.sleep(seconds)
    note("end", current_job().id)


@task(backoff=Backoff(base=0.2, cap=0.5, jitter=0), max_retries=3, timeout=20)
def second_time(label: str) -> None:
    if current_job().attempt < 2:
        raise ValueError(label)
    note("start", label)
    note("end", label)


@task(timeout=20)
def delayed(label: str) -> None:
    note("start", label)
    note("end", label)

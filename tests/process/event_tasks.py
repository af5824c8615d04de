"""Tasks that fare in different ways, the same at each run."""

import os

from jobsched import Backoff, current_job, task

SOON = Backoff(base=0.01, jitter=0)


@task
def fare_well(number: int) -> int:
    return number


@task(max_retries=0)
def fail(number: int) -> None:
    raise ValueError(number)


@task(max_retries=3, backoff=SOON)
def fail_once(number: int) -> None:
    if current_job().attempt == 1:
        raise ValueError(number)


@task
def die(number: int) -> None:
    os._exit(number)

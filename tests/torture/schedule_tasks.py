"""The tasks of the schedule scenarios; a copy lies beside each project's tasks.py."""

import time

from jobsched import task


@task
def tick(name: str, seconds: float = 0.0) -> None:
    if seconds:
        time.sleep(seconds)

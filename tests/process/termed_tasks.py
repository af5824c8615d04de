"""Tasks that run on terms: so many at once, at most once. Tests import this module too."""

import time

from recorded_tasks import HERE, note, recorded, wait_for

from jobsched import task


@task(max_running=2)
def pair(label: str, seconds: float = 0.0) -> None:
    with recorded(label):
        time.sleep(seconds)


@task(at_most_once=True)
def once(label: str, gate: str) -> str:
    with recorded(label):
        wait_for(HERE / gate)
    return label


@task(at_most_once=True)
def fail_once(label: str) -> None:
    note("start", label)
    raise RuntimeError(label)

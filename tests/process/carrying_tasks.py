"""Tasks that dispatch together with their own completion."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobsched import batch, current_job, default_dispatcher, dispatch, task

HERE = Path(__file__).parent
LATER = datetime.now(UTC) + timedelta(days=1)


@task(category="mail")
def step(label: str) -> str:
    return label


def _dispatch_all(label: str) -> None:
    dispatch(step, args=(label,), atomic=True)
    step.options(atomic=True).dispatch(label)
    with batch(atomic=True) as together:
        together.dispatch(step, args=(label,))
        together.schedule_once(label, step, LATER, args=(label,))


@task(category="mail")
def carry(label: str, ending: str = "") -> int:
    """Dispatch three jobs and a schedule, and end as told."""
    _dispatch_all(label)
    if ending == "raise":
        raise RuntimeError(label)
    if ending == "die":
        os.kill(os.getpid(), 9)
    if ending == "look":
        jobs = default_dispatcher()
        return len(jobs.schedules.list())
    return 3


@task(category="mail", max_retries=1)
def carry_at_the_second_try(label: str) -> None:
    _dispatch_all(label)
    if current_job().attempt == 1:
        raise RuntimeError(label)


@task(category="mail")
def carry_unknown() -> None:
    dispatch("nowhere:gone", "mail", atomic=True)


@task(category="mail")
def carry_too_much() -> None:
    for _ in range(3):
        dispatch(step, args=("x" * 900_000,), atomic=True)


@task(category="mail")
def carry_twice_the_same_key(label: str) -> None:
    for _ in range(2):
        dispatch(step, args=(label,), unique=label, atomic=True)


@task(category="mail")
def carry_over_the_limit() -> None:
    with batch(atomic=True) as together:
        for number in range(20):
            together.dispatch(step, "narrow", args=(str(number),))

"""The tasks of the soak; a copy lies beside each project's tasks.py, which it uses."""

from tasks import note

from jobsched import Backoff, current_job, task

SOON = Backoff(base=0.01, cap=0.05, jitter=0)
RESULT = list(range(50))


@task
def plain(label: str) -> None:
    note("start", label)


@task
def with_result(label: str) -> dict[str, object]:
    note("start", label)
    return {"label": label, "numbers": RESULT}


@task
def with_payload(label: str, payload: bytes) -> None:
    note("start", label)


@task(max_retries=3, backoff=SOON)
def second_time(label: str) -> None:
    note("start", label)
    if current_job().attempt == 1:
        raise ValueError(label)


@task(max_retries=1, backoff=SOON)
def never(label: str) -> None:
    note("start", label)
    raise ValueError(label)

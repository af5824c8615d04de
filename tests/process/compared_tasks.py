"""Tasks that end in every way there is, soon, and alike wherever they run."""

import time

from jobsched import (
    Backoff,
    ConcurrencyLimit,
    Discard,
    Retry,
    RetryRule,
    Snooze,
    adispatch,
    current_job,
    default_dispatcher,
    dispatch,
    task,
)

SOON = Backoff(base=0.01, jitter=0)
_snoozed = set()


@task(category="mail")
def answer(what: str) -> str:
    return f"{what} by attempt {current_job().attempt}"


@task(category="mail", max_retries=3, backoff=SOON, retry_rules={KeyError: RetryRule(0)})
def end_as(how: str) -> str:
    me = current_job()
    match how:
        case "failed":
            raise ValueError(how)
        case "ruled out":
            raise KeyError(how)
        case "retried" if me.attempt < 3:
            raise Retry("later", after=0.01)
        case "discarded":
            raise Discard("of no use")
        case "unkept":
            return object()
    return f"{how} by attempt {me.attempt}"


@task(category="mail")
def snooze() -> int:
    """Snooze once in each process: no attempt is spent, however often that is."""
    if current_job().id not in _snoozed:
        _snoozed.add(current_job().id)
        raise Snooze(0.01)
    return current_job().attempt


@task(category="mail", at_most_once=True)
def once() -> None:
    raise ValueError("only once")


@task(category="mail", max_running=1)
async def spread(atomic: bool) -> str:  # noqa: FBT001 (a dispatch names it)
    await adispatch(answer, "reports", args=("from a loop",))
    dispatch(answer, "reports", args=("atomic",), atomic=atomic, limit=ConcurrencyLimit("k", 1))
    return "spread"


@task(category="mail")
def wait() -> str:
    return answer.dispatch("waited for").result(timeout=20)


@task(category="mail")
def cancel_itself() -> None:
    job = current_job()
    job.cancelled()
    default_dispatcher().cancel([job.id])
    deadline = time.monotonic() + 20
    while not job.cancelled():  # a node tells it only after it has answered
        assert time.monotonic() < deadline
        time.sleep(0.001)
    raise RuntimeError("it has seen that")

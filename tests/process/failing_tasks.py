# ruff: noqa: T201 (what a task prints is kept)
"""Tasks that fail, ask for another try, or are of no use any more."""

import builtins
import logging
import sys
from datetime import timedelta

from recorded_tasks import HERE, note

from jobsched import Backoff, Discard, Retry, RetryRule, Snooze, current_job, task

SOON = Backoff(base=0.01, jitter=0)
RULES = {
    OSError: RetryRule(1),
    ConnectionError: RetryRule(2),
    ValueError: RetryRule(0),
    LookupError: RetryRule(1, Backoff(base=0.4, jitter=0)),
    ArithmeticError: RetryRule(backoff=Backoff(base=0.07, jitter=0)),
}


@task(max_retries=3, backoff=SOON, retry_rules=RULES)
def raise_one(label: str, name: str) -> None:
    """Raise the built-in exception of a name."""
    note("start", label)
    raise getattr(builtins, name)("as told")


@task(max_retries=3, backoff=SOON)
def ask_again(label: str, seconds: float, most: int | None, *, precise: bool = False) -> None:
    note("start", label)
    raise Retry("not yet", after=timedelta(seconds=seconds) if precise else seconds, max_retries=most)


@task
def snooze(label: str, times: int) -> int:
    """Snooze so many times, then return the attempt."""
    note("start", label)
    file = HERE / f"snoozed-{label}"
    snoozed = len(file.read_text()) if file.exists() else 0
    if snoozed < times:
        file.write_text("z" * (snoozed + 1))
        raise Snooze(0.01)
    return current_job().attempt


@task(max_retries=5)
def discard(label: str) -> None:
    note("start", label)
    raise Discard("nobody wants it, and password=hunter2 is no reason")


@task(max_retries=1, backoff=SOON)
def tell_everything(label: str) -> None:
    """Write in every way, and fail the first time."""
    note("start", label)
    attempt = current_job().attempt
    print(f"{label}: printed at {attempt}")
    logging.getLogger("shop").warning("%s: logged at %d", label, attempt)
    sys.stderr.write(f"{label}: stderr at {attempt}\n")
    current_job().log(f"{label}: kept at {attempt}")
    if attempt == 1:
        raise RuntimeError(label)


@task
def tell_secrets() -> None:
    print("connecting with password=hunter2")
    current_job().log("api_key: hunter2")
    raise PermissionError("refused: postgres://me:hunter2@db/shop")


@task
def pour(lines: int) -> None:
    for number in range(lines):
        print(f"line {number:06}")


@task(max_retries=24, backoff=Backoff(base=0, jitter=0))
def fail_always(label: str) -> None:
    note("start", label)
    raise RuntimeError(label)

"""What becomes of a run that did not return: the exceptions that end it, and the rule."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from jobsched.errors import InvalidOption
from jobsched.job import State
from jobsched.retry import Backoff, RetryRule, rule_for

if TYPE_CHECKING:
    import random

__all__ = [
    "Discard",
    "JobCancel",
    "JobInterrupted",
    "JobTimeout",
    "Retry",
    "RetryTerms",
    "Snooze",
    "Verdict",
    "judge",
]

_LONGEST_S = 50 * 366 * 86_400.0


class JobInterrupted(BaseException):
    """Raised inside a job to end it. Not an Exception: `except Exception` lets it pass."""


class JobTimeout(JobInterrupted):
    """Raised inside a job when its time is up."""


class JobCancel(JobInterrupted):
    """Raised inside a job that was cancelled."""


class Retry(Exception):
    """Raise it in a job: try again, `after` so many seconds (or a timedelta), by the task's back-off
    without. It spends an attempt: `max_retries` limits it, the task's own without.
    """

    def __init__(
        self, reason: str = "", *, after: float | timedelta | None = None, max_retries: int | None = None
    ) -> None:
        self.after_s = None if after is None else _seconds("after", after)
        self.max_retries = max_retries
        super().__init__(reason or "asked to be tried again")


class Snooze(Exception):
    """Raise it in a job: run it again after so many seconds (or a timedelta), as if it had not run.
    No attempt is spent, so it may be raised for ever.
    """

    def __init__(self, after: float | timedelta, reason: str = "") -> None:
        self.after_s = _seconds("after", after)
        super().__init__(reason or f"snoozed for {self.after_s:g} s")


class Discard(Exception):
    """Raise it in a job: it is of no use any more. It ends as cancelled, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class RetryTerms(NamedTuple):
    """How often and how far apart a job is tried again."""

    max_retries: int
    backoff: Backoff
    rules: Mapping[type[BaseException], RetryRule]


class Verdict(NamedTuple):
    """Where the job goes; after how many seconds if that is `scheduled`."""

    state: State
    after_s: float = 0.0
    unspent: bool = False


def judge(error: BaseException, attempt: int, terms: RetryTerms, rng: random.Random) -> Verdict:
    """Return what becomes of a run that raised an error at its so-manieth attempt (from 1)."""
    if isinstance(error, Snooze):
        return Verdict(State.SCHEDULED, error.after_s, unspent=True)
    if isinstance(error, Discard):
        return Verdict(State.CANCELLED)
    rule = rule_for(type(error), terms.rules)
    limit = terms.max_retries if rule.max_retries is None else rule.max_retries
    wait_s: float | None = None
    if isinstance(error, Retry):
        limit = limit if error.max_retries is None else error.max_retries
        wait_s = error.after_s
    if attempt > limit:
        return Verdict(State.FAILED)
    if wait_s is None:
        wait_s = (rule.backoff or terms.backoff).delay(attempt, rng)
    return Verdict(State.SCHEDULED, wait_s)


def _seconds(option: str, value: float | timedelta) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_S:
        raise InvalidOption(f"{option} must be seconds from 0 to 50 years, or a timedelta, got {value!r}")
    return float(seconds)

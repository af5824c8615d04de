import random
from datetime import timedelta

import pytest

from jobsched.errors import InvalidOption
from jobsched.job import State
from jobsched.retry import Backoff, RetryRule
from jobsched.verdict import (
    Discard,
    JobCancel,
    JobInterrupted,
    JobTimeout,
    Retry,
    RetryTerms,
    Snooze,
    Verdict,
    judge,
)

FAILED = Verdict(State.FAILED)
TERMS = RetryTerms(2, Backoff(base=1, factor=10, jitter=0), {})
RULES = {
    OSError: RetryRule(0),
    ConnectionError: RetryRule(5, Backoff(base=7, jitter=0)),
    KeyError: RetryRule(backoff=Backoff(base=3, jitter=0)),
    Retry: RetryRule(1),
}
RULED = RetryTerms(2, Backoff(base=1, jitter=0), RULES)


def again(after_s, *, unspent=False):
    return Verdict(State.SCHEDULED, after_s, unspent)


@pytest.mark.parametrize(
    ("error", "attempt", "terms", "expected"),
    [
        (ValueError(), 1, TERMS, again(1)),
        (ValueError(), 2, TERMS, again(10)),
        (ValueError(), 3, TERMS, FAILED),
        (ValueError(), 1, RetryTerms(0, Backoff(), {}), FAILED),
        (JobTimeout(), 1, TERMS, again(1)),
        (JobTimeout(), 3, TERMS, FAILED),
        (Retry(), 1, TERMS, again(1)),
        (Retry(), 3, TERMS, FAILED),
        (Retry(after=5), 2, TERMS, again(5)),
        (Retry(after=0), 2, TERMS, again(0)),
        (Retry(after=timedelta(minutes=2)), 1, TERMS, again(120)),
        (Retry(after=5), 3, TERMS, FAILED),
        (Retry(max_retries=9), 3, TERMS, again(100)),
        (Retry(max_retries=0), 1, TERMS, FAILED),
        (Retry(), 2, RULED, FAILED),
        (Retry(max_retries=2), 2, RULED, again(2)),
        (Snooze(30), 1, TERMS, again(30, unspent=True)),
        (Snooze(timedelta(hours=1)), 99, TERMS, again(3600, unspent=True)),
        (Discard("no use"), 1, TERMS, Verdict(State.CANCELLED)),
        (Discard("no use"), 99, TERMS, Verdict(State.CANCELLED)),
        (FileNotFoundError(), 1, RULED, FAILED),
        (ConnectionResetError(), 5, RULED, again(112)),
        (ConnectionResetError(), 6, RULED, FAILED),
        (KeyError(), 2, RULED, again(6)),
        (KeyError(), 3, RULED, FAILED),
    ],
)
def test_what_becomes_of_a_run(error, attempt, terms, expected):
    assert judge(error, attempt, terms, random.Random(1)) == expected


def test_the_wait_before_a_retry_has_jitter_and_one_asked_for_has_none():
    terms = RetryTerms(9, Backoff(base=100, jitter=0.2), {})
    found = {judge(ValueError(), 1, terms, random.Random(seed)).after_s for seed in range(20)}
    assert len(found) == 20
    assert all(80 <= wait <= 120 for wait in found)
    assert {judge(Retry(after=100), 1, terms, random.Random(seed)).after_s for seed in range(20)} == {100}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Retry(), "asked to be tried again"),
        (Retry("the shop is closed"), "the shop is closed"),
        (Snooze(1.5), "snoozed for 1.5 s"),
        (Snooze(timedelta(days=1)), "snoozed for 86400 s"),
        (Snooze(1, "not yet"), "not yet"),
        (Discard("no use"), "no use"),
    ],
)
def test_an_error_says_why(error, text):
    assert str(error) == text


@pytest.mark.parametrize(
    "after", [-1, -0.001, float("nan"), float("inf"), 51 * 366 * 86_400, True, "5", timedelta(seconds=-1)]
)
def test_a_wait_that_is_none_is_refused(after):
    with pytest.raises(InvalidOption, match="after must be seconds from 0 to 50 years"):
        Snooze(after)
    with pytest.raises(InvalidOption, match="after must be seconds"):
        Retry(after=after)


@pytest.mark.parametrize("error", [JobTimeout, JobCancel])
def test_except_exception_does_not_catch_an_interruption(error):
    assert issubclass(error, JobInterrupted)
    assert not issubclass(error, Exception)

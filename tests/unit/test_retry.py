import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.retry import Backoff


class Middle(random.Random):
    """Draws the middle of every range: no jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def waits(backoff: Backoff, retries: range) -> list[float]:
    return [backoff.delay(retry, Middle()) for retry in retries]


def test_waits_double_up_to_the_cap():
    assert waits(Backoff(), range(1, 5)) == [1, 2, 4, 8]
    assert waits(Backoff(cap=5), range(1, 6)) == [1, 2, 4, 5, 5]


def test_base_and_factor_are_the_users():
    assert waits(Backoff(base=0.5, factor=3), range(1, 4)) == [0.5, 1.5, 4.5]
    assert waits(Backoff(base=10, factor=1), range(1, 4)) == [10, 10, 10]
    assert waits(Backoff(base=0), range(1, 4)) == [0, 0, 0]


@pytest.mark.parametrize("retry", [65, 1025, 2000, 10**9, 10**30])
def test_a_huge_number_of_retries_waits_the_cap(retry):
    assert Backoff().delay(retry, Middle()) == 3600


def test_a_steep_factor_waits_the_cap_too():
    assert Backoff(factor=1e6).delay(100, Middle()) == 3600


@settings(max_examples=50, deadline=None)
@given(
    retry=st.integers(1, 10**12),
    seed=st.integers(0, 10),
    jitter=st.floats(0, 1),
    base=st.floats(0, 100),
    factor=st.floats(1, 10),
)
def test_every_wait_is_within_the_jitter_of_its_plain_value(retry, seed, jitter, base, factor):
    backoff = Backoff(base=base, factor=factor, jitter=jitter)
    plain = msgspec.structs.replace(backoff, jitter=0).delay(retry, random.Random(seed))
    wait = backoff.delay(retry, random.Random(seed))
    assert 0 <= plain <= 3600
    assert plain * (1 - jitter) <= wait <= plain * (1 + jitter)


def test_jobs_that_failed_together_come_back_apart():
    rng = random.Random(1)
    drawn = {Backoff().delay(5, rng) for _ in range(100)}
    assert len(drawn) == 100
    assert max(drawn) - min(drawn) > 0.5 * 2 * 0.2 * 16


def test_the_same_randomness_gives_the_same_wait():
    assert Backoff().delay(3, random.Random(7)) == Backoff().delay(3, random.Random(7))


def test_an_unknown_setting_is_refused():
    with pytest.raises(msgspec.ValidationError, match="bas"):
        msgspec.convert({"bas": 1}, Backoff)
    with pytest.raises(TypeError, match="bas"):
        Backoff(bas=1)

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.rate import Bucket, Rate, parse_rate

TICK_S = 1 / 1024
"""Times in whole ticks: their sums and differences are exact."""


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/m", Rate(100, 60.0)),
        ("5/s", Rate(5, 1.0)),
        ("1000/d", Rate(1000, 86_400.0)),
        ("60/h", Rate(60, 3600.0)),
        ("10/30s", Rate(10, 30.0)),
        (" 3 / 1h30m ", Rate(3, 5400.0)),
        ("1/1ms", Rate(1, 0.001)),
        ("100000000/365d", Rate(100_000_000, 31_536_000.0)),
    ],
)
def test_a_rate_is_read_as_starts_and_seconds(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "'fast' is not a rate, expected one like '100/m', '5/s' or '10/30s'"),
        ("", "'' is not a rate"),
        ("100", "'100' is not a rate"),
        ("100/", "'100/' is not a rate"),
        ("/s", "'/s' is not a rate"),
        ("1.5/s", "'1.5/s' is not a rate"),
        ("-1/s", "'-1/s' is not a rate"),
        ("٣/s", "is not a rate"),
        (100, "100 is not a rate"),
        ("0/s", "a rate allows from 1 to 100000000 starts, got '0/s'"),
        ("100000001/s", "a rate allows from 1 to 100000000 starts"),
        ("5/30", "'30' has no unit, write '30s' for seconds"),
        ("5/min", "'min' is not a duration"),
        ("5/0s", "a rate is over a duration from 1ms to 365d, got '5/0s'"),
        ("5/366d", "a rate is over a duration from 1ms to 365d, got '5/366d'"),
        ("5/" + "9" * 1000 + "d", "a duration must be finite"),
    ],
)
def test_what_is_no_rate_is_refused_with_the_reason(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        parse_rate(text)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 150


def test_a_rate_is_shown_with_its_seconds():
    assert str(Rate(10, 30.0)) == "10 per 30 s"


def test_a_new_bucket_holds_one_token_and_the_others_come_evenly():
    bucket = Bucket(Rate(4, 8.0))
    assert [bucket.room(100.0 + second) for second in range(9)] == [1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_a_bucket_that_knows_the_earlier_starts_is_full_but_for_them():
    bucket = Bucket(Rate(4, 8.0), earlier=[99.0, 95.0, 80.0])
    assert [bucket.room(at) for at in (100.0, 103.0, 107.0)] == [2, 3, 4]


def test_a_token_comes_back_after_the_period():
    bucket = Bucket(Rate(3, 8.0), earlier=[])
    bucket.take(2, 100.0)
    assert (bucket.room(100.0), bucket.wait_s(100.0)) == (1, 0.0)
    bucket.take(1, 102.0)
    assert (bucket.room(102.0), bucket.wait_s(102.0)) == (0, 6.0)
    assert (bucket.room(107.999), bucket.room(108.0), bucket.room(110.0)) == (0, 2, 3)


def test_takes_close_together_come_back_as_one_a_little_later():
    bucket = Bucket(Rate(3, 256.0), earlier=[])
    for now in (100.0, 100.5, 101.0):
        bucket.take(1, now)
    assert [bucket.room(at) for at in (356.0, 356.49, 356.5, 356.99, 357.0)] == [0, 0, 2, 2, 3]


def test_more_than_there_was_room_for_is_noted_too():
    bucket = Bucket(Rate(2, 8.0), earlier=[])
    bucket.take(1, 100.0)
    bucket.take(5, 101.0)
    assert (bucket.room(101.0), bucket.wait_s(101.0)) == (0, 8.0)
    assert bucket.room(109.0) == 2


steps = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 3), st.integers(0, 400)), st.integers(0, 30)),
    min_size=1,
    max_size=120,
)
"""How long to pause, until the next token for None, and how many to take."""


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, 40), per=st.integers(1, 2000), steps=steps, fresh=st.booleans())
def test_no_window_ever_sees_more_starts_than_the_rate_says(count, per, steps, fresh):
    bucket = Bucket(Rate(count, per * TICK_S), earlier=None if fresh else [])
    taken, tick = [], 0
    for pause, wanted in steps:
        tick += math.ceil(bucket.wait_s(tick * TICK_S) / TICK_S) if pause is None else pause
        got = min(wanted, bucket.room(tick * TICK_S))
        bucket.take(got, tick * TICK_S)
        taken.append((tick, got))
    for begin, _ in taken:
        assert sum(got for at, got in taken if begin <= at < begin + per) <= count


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 2000), per=st.integers(1, 2000), restarts=st.lists(st.integers(1, 3000), max_size=4)
)
def test_no_window_sees_more_across_restarts_when_the_earlier_starts_are_known(count, per, restarts):
    taken, tick = [], 0
    for life in [*restarts, 1]:
        bucket = Bucket(
            Rate(count, per * TICK_S), earlier=[at * TICK_S for at, got in taken for _ in range(got)]
        )
        got = bucket.room(tick * TICK_S)
        bucket.take(got, tick * TICK_S)
        taken.append((tick, got))
        tick += life
    for begin, _ in taken:
        assert sum(got for at, got in taken if begin <= at < begin + per) <= count


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 100_000_000), per_s=st.floats(0.001, 3.2e7), steps=steps)
def test_a_wait_ends_with_room_and_the_memory_stays_small(count, per_s, steps):
    bucket = Bucket(Rate(count, per_s))
    now = 1e6
    for pause, wanted in steps:
        now += (pause or 0) * per_s / 1000
        bucket.take(min(wanted * count, bucket.room(now)), now)
        wait_s = bucket.wait_s(now)
        assert (wait_s == 0.0) == (bucket.room(now) > 0)
        assert wait_s <= per_s * 1.001
        now += wait_s * 1.000001
        assert bucket.room(now + 1e-9)
        assert len(bucket._taken) <= 513


@pytest.mark.parametrize("count", [1, 7, 1000, 1_000_000])
def test_who_takes_all_that_there_is_gets_nearly_the_whole_rate(count):
    bucket, now, got = Bucket(Rate(count, 1.0)), 0.0, 0
    while now < 20:
        room = bucket.room(now)
        bucket.take(room, now)
        got += room
        now += max(bucket.wait_s(now), 0.001)
    assert 0.95 * 20 * count <= got <= 20 * count

import itertools
import random
import re
import statistics

import pytest

from jobsched.bench.arrivals import burst, constant, parse_arrivals, poisson, step

SEED = 11


def first(arrivals, count):
    return list(itertools.islice(arrivals, count))


def until(arrivals, seconds):
    return list(itertools.takewhile(lambda at: at < seconds, arrivals))


def test_constant_arrivals_are_evenly_spaced_and_do_not_drift():
    assert first(constant(random.Random(SEED), rate=4), 5) == [0, 0.25, 0.5, 0.75, 1.0]
    assert until(constant(random.Random(SEED), rate=3), 1000)[-1] == 2999 / 3


def test_bursts_come_at_once_and_keep_the_rate_over_time():
    assert first(burst(random.Random(SEED), rate=10, size=3), 7) == [0, 0, 0, 0.3, 0.3, 0.3, 0.6]
    assert len(until(burst(random.Random(SEED), rate=10, size=5), 100)) == 1000


def test_poisson_arrivals_are_exponentially_apart():
    arrivals = first(poisson(random.Random(SEED), rate=50), 20_000)
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert arrivals == sorted(arrivals)
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.01)


def test_poisson_arrivals_depend_on_their_seed_alone():
    assert first(poisson(random.Random(1), rate=5), 9) == first(poisson(random.Random(1), rate=5), 9)
    assert first(poisson(random.Random(1), rate=5), 9) != first(poisson(random.Random(2), rate=5), 9)


def test_a_step_changes_the_rate_at_its_time():
    arrivals = until(step(random.Random(SEED), steps=[(0, 10), (2, 100), (3, 0), (4, 5)]), 6)
    counts = [sum(low <= at < high for at in arrivals) for low, high in ((0, 2), (2, 3), (3, 4), (4, 6))]
    assert counts == [20, 100, 0, 10]
    assert arrivals == sorted(arrivals)


def test_what_a_step_begins_of_an_arrival_the_next_one_completes():
    # Half a job is due at 1 s; the other half takes 0.25 s at twice the rate.
    arrivals = until(step(random.Random(SEED), steps=[(0, 0.5), (1, 2)]), 3)
    assert arrivals == [0, 1.25, 1.75, 2.25, 2.75]


def test_a_last_step_without_a_rate_is_the_end():
    assert list(step(random.Random(SEED), steps=[(0, 2), (1, 0)])) == [0, 0.5]


@pytest.mark.parametrize(
    ("text", "first_arrivals"),
    [
        ("constant", [0, 0.1, 0.2]),
        ("burst:2", [0, 0, 0.2]),
        ("step:100ms=2,1s=4", [0, 0.1, 0.6]),
    ],
)
def test_a_process_is_read_from_a_text(text, first_arrivals):
    assert first(parse_arrivals(text, 10)(random.Random(SEED)), 3) == pytest.approx(first_arrivals)


def test_a_poisson_process_is_read_from_a_text():
    read = parse_arrivals("poisson", 7)
    assert first(read(random.Random(SEED)), 5) == first(poisson(random.Random(SEED), rate=7), 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("even", "'even' is no arrival process, expected constant, poisson"),
        ("poisson:3", "is no arrival process"),
        ("burst", "a burst has from 1 to 100,000 jobs, like burst:50, got ''"),
        ("burst:0", "got '0'"),
        ("burst:-2", "got '-2'"),
        ("step:", "'' is no step, expected a time and a rate like '10s=200'"),
        ("step:10s", "'10s' is no step"),
        ("step:10=5", "'10=5' is no step"),
        ("step:10s=-1", "a rate must be 0 or more, got '10s=-1'"),
        ("step:10s=nan", "a rate must be 0 or more"),
        ("step:10s=5,5s=1", "steps must be in the order of their times"),
    ],
)
def test_what_is_no_process_is_said(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_arrivals(text, 10)

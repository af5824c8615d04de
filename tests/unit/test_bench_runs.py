import pytest

from jobsched.bench.rebalance import ideal_split, is_near, reached_at
from jobsched.bench.runs import Run, busy_us, gaps_ms, idle_share


def run(worker, category, start, end):
    return Run(b"", category, worker, start, end)


def test_no_time_is_lost_where_each_job_follows_the_one_before():
    assert idle_share([run(1, "a", 0, 10), run(1, "a", 10, 20), run(1, "a", 20, 90)], 1) == 0


def test_the_gaps_of_all_workers_are_lost_as_long_as_jobs_start():
    runs = [run(1, "a", 0, 5), run(1, "a", 10, 25), run(2, "a", 0, 10), run(2, "a", 20, 30)]
    # Until 20: of worker 1 from 5 to 10, of worker 2 from 10 to 20.
    assert idle_share(runs, 2) == pytest.approx(15 / 40)


def test_a_worker_without_a_job_is_lost():
    assert idle_share([run(1, "a", 0, 10), run(1, "a", 10, 20)], 2) == pytest.approx(0.5)


def test_one_job_loses_nothing():
    assert idle_share([run(1, "a", 5, 10)], 1) == 0


def test_a_run_counts_as_far_as_it_is_between_the_instants():
    runs = [run(1, "a", 0, 15), run(2, "a", 18, 30), run(3, "a", 12, 14), run(4, "a", 30, 40)]
    assert busy_us(runs, 10, 20) == 5 + 2 + 2


def test_workers_belong_where_the_jobs_are():
    assert ideal_split(10, {"old": 100, "new": 300}) == {"old": 2.5, "new": 7.5}
    assert ideal_split(10, {"old": 0, "new": 0}) == {"old": 0, "new": 0}


@pytest.mark.parametrize(("new", "near"), [(8, True), (7, True), (6, False), (9, True), (10, False)])
def test_nine_of_ten_workers_have_to_be_right(new, near):
    assert is_near({"old": 10 - new, "new": new}, {"old": 2.0, "new": 8.0}) is near


def test_the_split_is_reached_with_the_start_of_the_job_that_makes_it():
    runs = [run(number, "old", 0, 100 + number) for number in range(10)]
    runs += [run(number, "new", 110 + number, 200) for number in range(8)]
    ideal = ideal_split(10, {"old": 2, "new": 8})
    assert reached_at(runs, ideal, 50) == 116
    assert reached_at(reversed(runs), ideal, 50) == 116
    assert reached_at(runs[:-2], ideal, 50) is None


def test_a_split_that_is_there_before_is_reached_at_once():
    runs = [run(1, "old", 0, 10), run(2, "new", 5, 90), run(1, "old", 60, 90)]
    assert reached_at(runs, {"old": 1.0, "new": 1.0}, 50) == 50


def test_gaps_are_those_of_each_worker_after_the_instant():
    runs = [
        run(1, "old", 0, 4000), run(1, "old", 9000, 10_000), run(1, "new", 13_000, 14_000),
        run(2, "old", 0, 10_000), run(2, "old", 11_000, 12_000),
    ]  # fmt: skip
    assert gaps_ms(runs, 5000) == ([1.0], [3.0])

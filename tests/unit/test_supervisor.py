import pytest

from jobsched.config import CategoryConfig
from jobsched.supervisor import Supervisor
from jobsched.worker_link import WorkerLink

NOW = 1000.0


@pytest.fixture
def supervisor():
    return Supervisor("mail", CategoryConfig())


@pytest.fixture
def worker():
    worker = WorkerLink(1, "mail", NOW, lambda _: None)
    worker.let_go_of_far_ends()
    yield worker
    worker.close()


# Back-off.


def deaths(supervisor, count, job=None, at=NOW):
    """The waits after workers that die one after another, each started after the death before."""
    times = [at + 2 * n for n in range(count)]
    waits = [supervisor.died(time + 1, time, job) for time in times]
    assert all(wait == round(supervisor.restart_at - times[-1] - 1, 6) for wait in waits[-1:])
    return waits


def test_the_first_death_is_replaced_at_once_and_each_later_one_waits_twice_as_long(supervisor):
    waits = deaths(supervisor, 12)
    assert waits == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30])


def test_a_thousand_deaths_wait_no_longer_than_the_cap(supervisor):
    assert deaths(supervisor, 3000)[-1] == 30


def test_a_job_that_ends_forgives_the_deaths(supervisor):
    deaths(supervisor, 5)
    supervisor.ran(0.1)
    assert deaths(supervisor, 1, at=NOW + 50) == [0]


# Run times.


@pytest.mark.parametrize(("ran_s", "rest_s"), [(0.0, 0.25), (0.125, 0.125), (0.25, 0.25), (8.0, 8.0)])
def test_a_job_is_likely_to_take_the_mean_and_once_over_it_as_long_again(supervisor, ran_s, rest_s):
    supervisor.mean_run_s = 0.25
    assert supervisor.rest_s(ran_s) == rest_s


def test_the_first_run_is_the_mean_and_later_ones_move_it_a_little(supervisor):
    assert supervisor.mean_run_s is None
    supervisor.ran(2.0)
    assert supervisor.mean_run_s == 2
    supervisor.ran(4.0)
    assert supervisor.mean_run_s == pytest.approx(2.1)
    for _ in range(300):
        supervisor.ran(4.0)
    assert supervisor.mean_run_s == pytest.approx(4, abs=0.01)


def test_runs_noted_together_weigh_as_one_by_one(supervisor):
    other = Supervisor("other", CategoryConfig())
    for one in (supervisor, other):
        one.ran(1.0)
    supervisor.ran(3.0, 4)
    for _ in range(4):
        other.ran(3.0)
    assert supervisor.mean_run_s == pytest.approx(other.mean_run_s)


# Room.


@pytest.mark.parametrize(
    ("commit_s", "window_s"), [(0.0, 0.002), (0.0005, 0.002), (0.001, 0.002), (0.004, 0.008)]
)
def test_the_window_is_two_commits_and_two_milliseconds_at_least(supervisor, commit_s, window_s):
    assert supervisor.window_s(commit_s) == pytest.approx(window_s)


@pytest.mark.parametrize(
    ("mean_run_s", "commit_s", "room"),
    [
        (None, 0.002, 1),  # not measured yet: nothing ahead
        (1.0, 0.002, 1),  # long ones: nothing ahead
        (0.2001, 0.002, 1),
        (0.2, 0.002, 2),  # shorter than a hundred commits: one ahead at least
        (0.004, 0.002, 2),
        (0.001, 0.002, 5),  # the window's worth
        (0.0001, 0.001, 21),
        (0.000001, 0.002, 256),  # and no more than 256 in all
        (0.0, 0.002, 256),
    ],
)
def test_an_idle_worker_gets_one_job_and_a_windows_worth_ahead(
    supervisor, worker, mean_run_s, commit_s, room
):
    supervisor.mean_run_s = mean_run_s
    assert supervisor.room(worker, NOW, commit_s) == room


@pytest.mark.parametrize(
    ("held", "late_s", "room"), [(1, 0, 4), (4, 0.004, 1), (5, 0, 0), (9, 0, 0), (1, 0.0041, 0), (2, 60, 0)]
)
def test_a_busy_worker_is_filled_up_unless_its_job_takes_long(supervisor, worker, held, late_s, room):
    supervisor.mean_run_s = 0.001
    worker.held.extend([None] * held)
    worker.progress_at = 0.0
    assert supervisor.room(worker, late_s, 0.002) == room


def test_a_busy_worker_of_an_unmeasured_category_gets_nothing_ahead(supervisor, worker):
    worker.held.append(None)
    assert supervisor.room(worker, NOW, 0.002) == 0


def test_jobs_that_kill_their_workers_one_after_another_do_not_add_up(supervisor):
    waits = [deaths(supervisor, 3, job) for job in (b"first", b"second", b"third")]
    assert waits == [[0, 0.1, 0.2]] * 3


def test_workers_that_cannot_start_are_not_forgiven_by_one_another(supervisor):
    assert deaths(supervisor, 4) == [0, 0.1, 0.2, 0.4]


def test_workers_that_die_together_count_as_one(supervisor):
    assert [supervisor.died(NOW + 1, NOW) for _ in range(12)] == [0] * 12
    assert deaths(supervisor, 2, at=NOW + 9) == [0.1, 0.2]

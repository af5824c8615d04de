import os
import time

import pytest

from jobsched.config import CategoryConfig
from jobsched.job import State
from jobsched.pool import Pool
from jobsched.store.base import Claim
from jobsched.warden import Warden
from jobsched.worker_link import Doom, WorkerLink

NOW = 1000.0
MIB = 1 << 20


class FakePreloader:
    """Reaches no processes: notes whom it was to poke and to kill."""

    def __init__(self) -> None:
        self.is_loaded = True
        self.poked: list[int] = []
        self.killed: list[int] = []

    def poke(self, worker: int) -> None:
        self.poked.append(worker)

    def kill(self, worker: int) -> None:
        self.killed.append(worker)


class Watched:
    """A warden and a pool whose workers are played by the test."""

    def __init__(self, **settings) -> None:
        self.preloader = FakePreloader()
        self.pool = Pool(self.preloader, {}, lambda: 0, lambda _: None, lambda _: None)
        self.warden = Warden({"mail": CategoryConfig(**settings), "other": CategoryConfig()})

    def worker(self, number: int = 7, claims: tuple[int, ...] = (5,), home: str = "mail") -> WorkerLink:
        """Add a worker that holds some claims and runs the first."""
        link = self.pool.workers[number] = WorkerLink(number, home, NOW, lambda _: None)
        link.let_go_of_far_ends()
        link.is_ready = True
        if claims:
            made = [Claim(claim, number, 1, bytes(16), b"record") for claim in claims]
            link.hand_out(made, "mail", NOW)
        return link

    def step(self, seconds: float) -> Doom | None:
        """Look so many seconds after the start; return the doom of the last worker."""
        self.warden.step(self.pool, NOW + seconds)
        return list(self.pool.workers.values())[-1].doom

    def cancel(self, worker: WorkerLink, claim: int = 5, seconds: float = 0) -> None:
        self.warden.cancel(self.pool, worker, claim, NOW + seconds)

    def close(self) -> None:
        for worker in self.pool.workers.values():
            worker.close()


@pytest.fixture
def watch():
    """A function that makes what watches workers, with the settings of the category mail."""
    made: list[Watched] = []

    def make(**settings) -> Watched:
        made.append(Watched(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def post(
    worker: WorkerLink, claim: int = 5, kill_in_s: float | None = None, retry_after_us: int = -1
) -> None:
    """Have a worker say that it began a run 3 s ago, with a limit of 2 s."""
    now = time.monotonic_ns()
    kill_at = 0 if kill_in_s is None else now + int(kill_in_s * 1e9)
    worker.board.post(claim, kill_at - 3_000_000_000, kill_at, retry_after_us, 2_000_000)


# When it looks.


def test_it_looks_ten_times_a_second_while_anything_runs(watch):
    watched = watch()
    assert watched.warden.timeout_s(watched.pool, NOW) == float("inf")
    worker = watched.worker(claims=())
    assert watched.warden.timeout_s(watched.pool, NOW) == float("inf")
    worker.is_ready = False
    watched.step(0)
    assert watched.warden.timeout_s(watched.pool, NOW) == pytest.approx(0.1)
    assert watched.warden.timeout_s(watched.pool, NOW + 5) == 0


def test_it_looks_just_when_a_run_is_to_be_killed(watch, monkeypatch):
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(NOW * 1e9))
    watched = watch()
    post(watched.worker(), kill_in_s=0.05)
    assert watched.step(0) is None
    assert watched.warden.timeout_s(watched.pool, NOW) == pytest.approx(0.05)


# Runs that overstay.


@pytest.mark.parametrize(
    ("retry_after_us", "state", "wait_us"),
    [(-1, State.FAILED, 0), (0, State.SCHEDULED, 0), (9, State.SCHEDULED, 9)],
)
def test_a_run_that_its_time_limit_did_not_end_is_killed_once(watch, retry_after_us, state, wait_us):
    watched = watch()
    post(watched.worker(), kill_in_s=-0.001, retry_after_us=retry_after_us)
    expected = Doom(5, state, "timed out after 2 s, and was killed 1 s later", wait_us)
    assert watched.step(0) == expected
    watched.step(1)
    assert watched.preloader.killed == [7]


@pytest.mark.parametrize(("claim", "kill_in_s"), [(5, 60), (5, None), (4, -1)])
def test_a_run_in_its_time_or_without_a_limit_or_that_has_ended_is_let_be(watch, claim, kill_in_s):
    watched = watch()
    post(watched.worker(), claim=claim, kill_in_s=kill_in_s)
    assert watched.step(0) is None


def test_an_idle_worker_is_let_be_whatever_its_board_says(watch):
    watched = watch()
    post(watched.worker(claims=()), kill_in_s=-1)
    assert watched.step(0) is None


# Cancellations.


def test_a_cancelled_run_is_asked_then_told_then_killed(watch):
    watched = watch()
    worker = watched.worker()
    watched.cancel(worker)
    assert (worker.board.cancel_stage(5), watched.preloader.poked) == (1, [7])
    assert watched.step(1.9) is None
    assert worker.board.cancel_stage(5) == 1
    watched.step(2.0)
    assert (worker.board.cancel_stage(5), watched.preloader.poked) == (2, [7, 7])
    assert watched.step(4.9) is None
    assert watched.preloader.poked == [7, 7]
    assert watched.step(5.0) == Doom(5, State.CANCELLED, "cancelled: killed, as it went on for 5 s")
    assert watched.preloader.killed == [7]


@pytest.mark.parametrize("kill_after_s", [0.5, 0.0])
def test_a_category_may_have_its_runs_killed_sooner(watch, kill_after_s):
    watched = watch(kill_after_s=kill_after_s)
    watched.cancel(watched.worker())
    doom = watched.step(kill_after_s)
    assert doom == Doom(5, State.CANCELLED, f"cancelled: killed, as it went on for {kill_after_s:g} s")


def test_a_lent_workers_run_is_killed_by_the_settings_of_the_category_that_it_serves(watch):
    watched = watch(kill_after_s=0.5)
    watched.cancel(watched.worker(home="other"))
    assert watched.step(0.5) is not None


def test_a_cancellation_that_is_repeated_puts_nothing_off(watch):
    watched = watch()
    worker = watched.worker()
    for seconds in range(5):
        watched.cancel(worker, seconds=seconds)
        watched.step(seconds)
    assert worker.board.cancel_stage(5) == 2
    assert watched.step(5.0) is not None


def test_a_cancellation_outlasts_that_the_end_of_the_run_before_is_told(watch):
    watched = watch()
    worker = watched.worker(claims=(4, 5))
    watched.cancel(worker)
    assert watched.step(0.0) is None
    worker.held.popleft()
    assert watched.step(5.0) == Doom(5, State.CANCELLED, "cancelled: killed, as it went on for 5 s")


def test_the_next_run_of_a_worker_is_not_ended_for_the_one_before(watch):
    watched = watch()
    worker = watched.worker(claims=(5, 6))
    watched.cancel(worker)
    worker.held.popleft()
    assert worker.board.cancel_stage(6) == 0
    assert watched.step(2) is None
    assert watched.step(9) is None
    watched.cancel(worker, claim=6, seconds=9)
    assert watched.step(13.9) is None
    assert watched.step(14) is not None


# Workers that are ill.


def test_a_worker_that_is_not_ready_after_a_minute_is_killed(watch):
    watched = watch()
    watched.worker(claims=()).is_ready = False
    assert watched.step(60) is None
    assert watched.step(60.1) == Doom(0, State.PENDING, "it was not ready after 60 s")


def test_a_worker_that_stops_in_the_middle_of_a_frame_is_killed(watch):
    watched = watch()
    worker = watched.worker()
    worker.half_received = 3
    assert watched.step(9.9) is None
    worker.heard_at = NOW + 5
    assert watched.step(14.9) is None
    doom = watched.step(15)
    assert doom == Doom(5, State.PENDING, "its worker sent a part of a frame, and no more for 10 s")


# Memory.


@pytest.mark.parametrize(("limit", "is_killed"), [(1 << 40, False), (1 * MIB, True), (None, False)])
def test_a_run_that_holds_too_much_memory_is_killed(watch, limit, is_killed):
    watched = watch(max_memory_bytes=limit)
    watched.worker().pid = os.getpid()
    doom = watched.step(0)
    assert (doom is not None) == is_killed
    if doom is not None:
        assert (doom.claim, doom.state, doom.out_of_memory) == (5, State.PENDING, True)
        assert doom.cause.startswith("out of memory: it held ")
        assert doom.cause.endswith(" MiB, max_memory is 1 MiB")


def test_a_run_that_holds_too_much_memory_is_named_though_the_end_of_the_one_before_is_untold(watch):
    watched = watch(max_memory_bytes=1 * MIB)
    worker = watched.worker(claims=(4, 5))
    worker.pid = os.getpid()
    post(worker, 5)
    assert watched.step(0).claim == 5


def test_memory_is_looked_at_four_times_a_second(watch):
    watched = watch(max_memory_bytes=1 * MIB)
    worker = watched.worker()
    watched.step(0)
    worker.pid = os.getpid()
    assert watched.step(0.2) is None
    assert watched.step(0.35) is not None

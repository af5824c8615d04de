import asyncio
import contextvars
import os
import select
import signal
import time

import pytest

from jobsched.board import Board
from jobsched.interrupts import Interrupts
from jobsched.verdict import JobCancel, JobTimeout

PATIENCE_S = 10


class Child:
    """A fork of this process that runs one function; what came of it is its only word."""

    def __init__(self, work) -> None:
        self.words, far = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                text = str(work(lambda: os.write(far, b".")))
            except BaseException as error:  # noqa: BLE001 (the child must not return into pytest)
                text = f"{type(error).__name__}: {error}"
            os.write(far, text.encode())
            os._exit(0)
        os.close(far)

    def hear(self, size: int = 1) -> str:
        """Return what it says next, within a bound; empty at its end."""
        if not select.select([self.words], [], [], PATIENCE_S)[0]:
            os.kill(self.pid, signal.SIGKILL)
            pytest.fail("the child says nothing")
        return os.read(self.words, size).decode()

    def result(self) -> str:
        """Wait for its end, and return what came of it."""
        said = ""
        while part := self.hear(1000):
            said += part
        os.close(self.words)
        os.waitpid(self.pid, 0)
        return said.lstrip(".")


@pytest.fixture
def board():
    board = Board.new()
    yield board
    board.close()


@pytest.fixture
def interrupts(board):
    """Installed only in the children."""
    return Interrupts(board, lambda: False)


def in_child(work) -> str:
    """Run something in a fork, and return what came of it."""
    return Child(lambda _ready: work()).result()


def poke():
    """Send the signal of a cancellation to this process, and let it arrive."""
    os.kill(os.getpid(), signal.SIGUSR1)
    time.monotonic()


def linger():
    """Do nothing until something is raised, within a bound."""
    time.sleep(PATIENCE_S)
    return "nothing was raised"


async def linger_async():
    await asyncio.sleep(PATIENCE_S)
    return "nothing was raised"


def run(interrupts, kind, limit_s=None, claim=1):
    """Run a job that lingers, plain or async."""
    if kind == "plain":
        return interrupts.call(claim, limit_s, linger)
    return interrupts.call_async(claim, limit_s, linger_async())


KINDS = pytest.mark.parametrize("kind", ["plain", "async"])


def test_what_a_function_returns_is_returned(interrupts):
    async def answer():
        return 42

    assert in_child(lambda: interrupts.call(1, 5, lambda: 42)) == "42"
    assert in_child(lambda: interrupts.call_async(1, 5, answer())) == "42"


@KINDS
def test_a_run_ends_when_its_time_is_up(interrupts, kind):
    assert in_child(lambda: run(interrupts, kind, 0.05)) == "JobTimeout: timed out after 0.05 s"


@KINDS
def test_a_run_that_waits_ends_when_its_node_asks(board, interrupts, kind):
    def work(ready):
        async def tell_and_linger():
            ready()
            return await linger_async()

        if kind == "plain":
            return interrupts.call(7, 30, lambda: ready() and linger())
        interrupts.install()
        return interrupts.call_async(7, 30, tell_and_linger())

    child = Child(work)
    assert child.hear() == "."
    board.ask_cancel(7, 1)
    os.kill(child.pid, signal.SIGUSR1)
    assert child.result() == "JobCancel: cancelled"


@KINDS
def test_a_run_that_was_cancelled_before_does_not_begin(board, interrupts, kind):
    board.ask_cancel(1, 1)
    assert in_child(lambda: run(interrupts, kind)) == "JobCancel: cancelled before it began"


def test_a_cancellation_of_another_claim_ends_nothing(board, interrupts):
    def job():
        poke()
        return "went on"

    board.ask_cancel(2, 2)
    assert in_child(lambda: interrupts.call(1, 5, job)) == "went on"


def test_a_job_that_asks_is_not_interrupted_until_its_node_insists(board, interrupts):
    steps = []

    def job():
        steps.append(interrupts.asks(1))
        board.ask_cancel(1, 1)
        steps.append(interrupts.asks(1))
        poke()
        steps.append("went on")
        board.ask_cancel(1, 2)
        poke()
        steps.append("was not ended")

    def work():
        try:
            interrupts.call(1, 5, job)
        except JobCancel:
            return steps, interrupts.has_seen

    assert in_child(work) == "([False, True, 'went on'], True)"


def test_what_an_earlier_job_has_left_asks_for_that_job_alone(board, interrupts):
    """As a thread does that looks now and then, and goes on when its job has ended."""

    def work():
        board.ask_cancel(1, 1)
        interrupts.begin()
        told = interrupts.call(2, 5, lambda: interrupts.asks(1))
        return told, interrupts.has_seen

    assert in_child(work) == "(True, False)"


def test_the_next_job_has_not_asked(board, interrupts):
    def job():
        board.ask_cancel(2, 1)
        poke()
        return "went on"

    def work():
        interrupts.call(1, 5, lambda: interrupts.asks(1))
        interrupts.begin()
        return interrupts.call(2, 5, job)

    assert in_child(work) == "JobCancel: cancelled"


@pytest.mark.parametrize("limit_s", [None, 0.02])
def test_an_exception_that_would_tear_a_frame_comes_a_moment_later(board, limit_s):
    is_busy = True
    interrupts = Interrupts(board, lambda: is_busy)
    steps = []

    def job():
        nonlocal is_busy
        if limit_s is None:
            board.ask_cancel(1, 1)
            poke()
        until = time.monotonic() + 0.1
        while time.monotonic() < until:  # the timer comes again and again
            pass
        steps.append("the frame is whole")
        is_busy = False
        linger()

    def work():
        interrupts.install()
        try:
            interrupts.call(1, limit_s, job)
        except (JobCancel, JobTimeout) as error:
            return steps, type(error).__name__

    name = "JobCancel" if limit_s is None else "JobTimeout"
    assert in_child(work) == f"(['the frame is whole'], '{name}')"


@pytest.mark.parametrize("limit_s", [None, 0.02])
def test_an_alarm_that_got_lost_on_the_way_into_a_blocking_call_comes_again(board, limit_s):
    is_busy = limit_s is None
    interrupts = Interrupts(board, lambda: is_busy)

    def job():
        nonlocal is_busy
        before = signal.getsignal(signal.SIGALRM)
        signal.signal(signal.SIGALRM, lambda *_: signal.signal(signal.SIGALRM, before))
        if is_busy:
            board.ask_cancel(1, 1)
            poke()
            is_busy = False
        linger()

    def work():
        interrupts.install()
        with pytest.raises((JobCancel, JobTimeout)) as caught:
            interrupts.call(1, limit_s, job)
        return caught.typename, signal.getitimer(signal.ITIMER_REAL)[0]

    name = "JobCancel" if limit_s is None else "JobTimeout"
    assert in_child(work) == f"('{name}', 0.0)"


def test_a_job_that_took_the_handlers_away_does_not_keep_the_next_from_ending(interrupts):
    def work():
        interrupts.call(1, 5, lambda: [signal.signal(n, signal.SIG_IGN) for n in (14, signal.SIGUSR1)])
        interrupts.call(2, 5, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}))
        return interrupts.call(3, 0.05, linger)

    assert in_child(work) == "JobTimeout: timed out after 0.05 s"


def test_nothing_is_raised_outside_a_run(board, interrupts):
    def work():
        interrupts.install()
        board.ask_cancel(1, 2)
        poke()
        interrupts.call(2, 5, lambda: None)
        rest = signal.getitimer(signal.ITIMER_REAL)
        os.kill(os.getpid(), signal.SIGALRM)
        poke()
        return rest

    assert in_child(work) == "(0.0, 0.0)"


def test_a_signal_from_elsewhere_does_not_end_a_run_before_its_time(interrupts):
    def job():
        os.kill(os.getpid(), signal.SIGALRM)
        poke()
        return linger()

    def work():
        start = time.monotonic()
        try:
            interrupts.call(1, 0.2, job)
        except JobTimeout:
            return time.monotonic() - start >= 0.2

    assert in_child(work) == "True"


def test_except_exception_of_a_job_does_not_swallow_its_end(interrupts):
    def job():
        try:
            linger()
        except Exception:  # noqa: BLE001 (what jobs do)
            return "swallowed"

    assert in_child(lambda: interrupts.call(1, 0.05, job)) == "JobTimeout: timed out after 0.05 s"


@pytest.mark.parametrize("error", [TimeoutError("its own"), asyncio.CancelledError("its own")])
def test_a_coroutines_own_error_is_not_taken_for_the_end_of_its_time(interrupts, error):
    async def job():
        raise error

    assert in_child(lambda: interrupts.call_async(1, 5, job())) == f"{type(error).__name__}: its own"


def test_a_coroutine_may_clean_up_when_it_is_ended(interrupts):
    steps = []

    async def job():
        try:
            await linger_async()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    def work():
        try:
            interrupts.call_async(1, 0.05, job())
        except JobTimeout:
            return steps

    assert in_child(work) == "['cleaned up']"


def test_coroutines_share_one_event_loop_also_after_a_timeout(interrupts):
    async def loop():
        return id(asyncio.get_running_loop())

    def work():
        first = interrupts.call_async(1, None, loop())
        try:
            interrupts.call_async(2, 0.05, linger_async())
        except JobTimeout:
            second = interrupts.call_async(3, 5, loop())
        interrupts.close()
        return first == second

    assert in_child(work) == "True"


def test_a_coroutine_sees_what_was_set_for_it_and_not_for_the_one_before(interrupts):
    number = contextvars.ContextVar("number")

    async def look():
        return number.get()

    def two_jobs():
        found = []
        for claim in (1, 2):
            token = number.set(claim)
            found.append(interrupts.call_async(claim, None, look()))
            number.reset(token)
        return found

    assert in_child(two_jobs) == "[1, 2]"

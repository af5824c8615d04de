import ctypes
import threading
from collections.abc import Callable, Sequence

import pytest

from jobsched.courier import Courier
from jobsched.errors import Unavailable
from jobsched.store.base import Accepted, Refused, Reply, Request

PATIENCE_S = 10.0


class Interrupted(BaseException):
    """What a signal handler raises in a thread."""


def until(is_so: Callable[[], object]) -> None:
    """Wait for a condition, for some time."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 1000)):
        if is_so():
            return
        pause.wait(0.001)
    pytest.fail("it did not become so")


def name_of(request: Request) -> str:
    """Return the one category that a request pauses."""
    [name] = request.pause
    return name


class Post:
    """The far side: answers each request with its own name, and can be held up in the middle."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.at_work = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails_with: BaseException | None = None
        self._alone = threading.Lock()

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        assert self._alone.acquire(blocking=False), "two exchanges at once"
        try:
            self.batches.append([name_of(request) for request in requests])
            self.at_work.release()
            assert self.may_go_on.wait(PATIENCE_S)
            if self.fails_with is not None:
                raise self.fails_with
            return [Refused("echo", name_of(request)) for request in requests]
        finally:
            self._alone.release()


class Caller(threading.Thread):
    """A thread that has one request carried."""

    def __init__(self, courier: Courier, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._courier = courier
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.reply = self._courier.call(Request(pause={self.name: 0}))
        except BaseException as error:  # noqa: BLE001 (it is what the test looks at)
            self.error = error

    def interrupt(self) -> None:
        """Raise Interrupted in the thread, as soon as it runs again."""
        assert self.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(Interrupted))

    def end(self) -> "Caller":
        self.join(PATIENCE_S)
        assert not self.is_alive(), f"{self.name} hangs"
        return self


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def courier(post):
    return Courier(post.exchange)


@pytest.fixture
def queue_up(courier, post):
    """A function that holds the post up with one thread and has others wait behind it, in order."""

    def hold_up(*names: str) -> list[Caller]:
        post.may_go_on.clear()
        callers = [Caller(courier, "leader")]
        assert post.at_work.acquire(timeout=PATIENCE_S)
        for count, name in enumerate(names, 1):
            callers.append(Caller(courier, name))
            until(lambda count=count: len(courier._waiting) == count)
        return callers

    return hold_up


def test_a_single_caller_is_served_at_once(courier, post):
    assert courier.call(Request(pause={"one": 0})) == Refused("echo", "one")
    assert courier.call(Request(pause={"two": 0})) == Refused("echo", "two")
    assert post.batches == [["one"], ["two"]]


def test_every_one_of_many_threads_gets_its_own_reply(courier, post):
    replies: dict[str, str] = {}
    start = threading.Barrier(16)

    def call_often(number: int) -> None:
        start.wait()
        for turn in range(50):
            name = f"{number}/{turn}"
            replies[name] = courier.call(Request(pause={name: 0})).reason

    threads = [threading.Thread(target=call_often, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(replies) == 16 * 50
    assert all(name == reason for name, reason in replies.items())
    assert sorted(name for batch in post.batches for name in batch) == sorted(replies)


def test_what_comes_during_an_exchange_shares_the_next(post, queue_up):
    callers = queue_up("a", "b", "c")
    post.may_go_on.set()
    assert [caller.end().reply.reason for caller in callers] == ["leader", "a", "b", "c"]
    assert post.batches == [["leader"], ["a", "b", "c"]]


def test_an_error_reaches_every_thread_of_its_batch_and_no_other(courier, post, queue_up):
    callers = queue_up("a", "b")
    post.fails_with = Unavailable("nobody is there")
    post.may_go_on.set()
    for caller in callers:
        assert caller.end().error is post.fails_with
    assert post.batches == [["leader"], ["a", "b"]]
    post.fails_with = None
    assert courier.call(Request(pause={"later": 0})) == Refused("echo", "later")


def test_a_reply_too_few_is_an_error_for_all():
    courier = Courier(lambda _: [])
    for _ in range(2):
        with pytest.raises(ValueError, match="not enough values"):
            courier.call(Request(pause={"one": 0}))


def test_a_thread_interrupted_in_the_queue_does_not_take_the_lead_with_it(courier, post, queue_up):
    leader, heir, third, fourth = queue_up("heir", "third", "fourth")
    heir.interrupt()
    post.may_go_on.set()
    assert isinstance(heir.end().error, Interrupted)
    assert [caller.end().reply.reason for caller in (leader, third, fourth)] == ["leader", "third", "fourth"]
    assert post.batches == [["leader"], ["third", "fourth"]]
    assert courier.call(Request(pause={"later": 0})) == Refused("echo", "later")


def test_an_interrupted_last_one_leaves_the_lead_to_whoever_comes_next(courier, post, queue_up):
    leader, heir = queue_up("heir")
    heir.interrupt()
    post.may_go_on.set()
    assert isinstance(heir.end().error, Interrupted)
    assert leader.end().reply is not None
    assert courier.call(Request(pause={"later": 0})) == Refused("echo", "later")
    assert post.batches == [["leader"], ["later"]]


def test_a_thread_interrupted_behind_the_next_leader_is_only_left_out(courier, post, queue_up):
    leader, heir, third = queue_up("heir", "third")
    third.interrupt()
    post.may_go_on.set()
    assert isinstance(third.end().error, Interrupted)
    assert [caller.end().reply.reason for caller in (leader, heir)] == ["leader", "heir"]
    assert courier.call(Request(pause={"later": 0})) == Refused("echo", "later")


def test_an_interrupted_leader_hands_the_lead_on(courier, post, queue_up):
    leader, heir, third = queue_up("heir", "third")
    leader.interrupt()
    post.may_go_on.set()
    assert isinstance(leader.end().error, Interrupted)
    assert [caller.end().reply.reason for caller in (heir, third)] == ["heir", "third"]
    assert courier.call(Request(pause={"later": 0})) == Refused("echo", "later")


def test_a_thread_interrupted_before_it_leads_does_not_take_the_lead_with_it(
    courier, post, queue_up, monkeypatch
):
    def interrupted() -> None:
        monkeypatch.undo()
        raise Interrupted

    leader, heir, third = queue_up("heir", "third")
    monkeypatch.setattr(courier, "_lead", interrupted)
    post.may_go_on.set()
    assert isinstance(heir.end().error, Interrupted)
    assert [caller.end().reply.reason for caller in (leader, third)] == ["leader", "third"]


def test_replies_may_be_of_any_kind():
    assert Courier(lambda requests: [Accepted() for _ in requests]).call(Request()) == Accepted()


def test_a_leader_interrupted_after_its_own_reply_came_leaves_no_trace():
    """Once the replies are being told apart, its own is there already and the batch waits again."""

    def replies(requests):
        yield from [Accepted()] * len(requests)
        raise KeyboardInterrupt

    courier = Courier(replies)
    with pytest.raises(KeyboardInterrupt):
        courier.call(Request())
    assert (courier._waiting, courier._leader) == ([], 0)
    courier._exchange = lambda requests: [Accepted()] * len(requests)
    assert courier.call(Request()) == Accepted()

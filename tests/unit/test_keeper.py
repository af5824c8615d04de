import msgspec
import pytest

from jobsched.clock import MICROSECONDS
from jobsched.codec import encode_record
from jobsched.config import RetentionConfig
from jobsched.job import JobError, JobRecord, ParkedFor, State
from jobsched.job_id import new_id
from jobsched.keeper import SETTLED_S, Keeper
from jobsched.store.base import NewJob, Outcome, Request, Slot, Turn
from jobsched.store.memory import MemoryStore

NOW = 500.0  # monotonic
AT = 10_000 * MICROSECONDS
SETTLED = AT - int(SETTLED_S * MICROSECONDS)
SEND = "shop.tasks:send"
STEP = 500


@pytest.fixture
def keeper():
    return Keeper(RetentionConfig(completed_s=3600, failed_s=None, cancelled_s=60, keep=7))


@pytest.fixture
def store():
    return MemoryStore()


# Retention.


def test_each_state_is_pruned_by_its_age_and_all_by_their_number(keeper):
    orders = {order.state: order for order in keeper.prune(NOW, AT)}
    assert {state: order.before for state, order in orders.items()} == {
        State.COMPLETED: AT - 3600 * MICROSECONDS,
        State.FAILED: 0,
        State.CANCELLED: SETTLED,
    }
    assert {(order.keep, order.settled, order.limit) for order in orders.values()} == {(7, SETTLED, STEP)}


def test_without_limits_nothing_is_pruned():
    keeper = Keeper(RetentionConfig(completed_s=None, failed_s=None, cancelled_s=None, keep=None))
    assert {(order.before, order.keep) for order in keeper.prune(NOW, AT)} == {(0, None)}


def test_it_prunes_every_half_minute(keeper):
    assert keeper.timeout_s(NOW) == 0
    assert keeper.prune(NOW, AT)
    assert keeper.prune(NOW + 29.9, AT) == []
    assert keeper.timeout_s(NOW + 4) == 26
    assert keeper.prune(NOW + 30, AT)


@pytest.mark.parametrize(("count", "wait_s"), [(0, 30), (STEP - 1, 30), (STEP, 0.01), (3 * STEP, 0.01)])
def test_where_much_was_pruned_it_soon_goes_on(keeper, count, wait_s):
    keeper.prune(NOW, AT)
    keeper.learn(count, NOW, is_full=False)
    assert keeper.timeout_s(NOW) == pytest.approx(wait_s)


def test_on_a_full_disk_it_forgets_sooner_and_says_so_once(keeper, caplog):
    keeper.prune(NOW, AT)
    for _ in range(2):
        keeper.learn(0, NOW, is_full=True)
    assert [record.message[:16] for record in caplog.records] == ["the disk is full"]
    assert keeper.timeout_s(NOW) == 0
    orders = keeper.prune(NOW, AT)
    minute_ago = AT - 60 * MICROSECONDS
    assert {(order.state, order.before, order.keep) for order in orders} == {
        (State.COMPLETED, minute_ago, None),
        (State.CANCELLED, minute_ago, None),
    }
    assert keeper.timeout_s(NOW) == 1
    keeper.learn(0, NOW, is_full=False)
    assert len(keeper.prune(NOW + 1, AT)) == 3


def test_what_it_orders_is_what_the_store_deletes(keeper, store):
    old, recent = (add(store) for _ in range(2))
    store.apply(Turn(now=AT - 3601 * MICROSECONDS, requests=[Request(cancel=[old])]))
    store.apply(Turn(now=AT - 599 * MICROSECONDS, requests=[Request(cancel=[recent])]))
    assert store.apply(Turn(now=AT, prune=keeper.prune(NOW, AT))).pruned == 1
    assert (store.get(old), store.get(recent) is None) == (None, False)


# Parked jobs.


def add(store, task=SEND) -> bytes:
    """Add a job and return its id."""
    job_id = new_id()
    record = JobRecord(
        id=job_id,
        task=task,
        category="mail",
        priority=0,
        dispatched_at=1,
        args=msgspec.Raw(msgspec.msgpack.encode([])),
        kwargs=msgspec.Raw(msgspec.msgpack.encode({})),
    )
    job = NewJob(job_id, task, "mail", 0, 0, encode_record(record))
    store.apply(Turn(now=AT, requests=[Request(jobs=[job])]))
    return job_id


def park(store, reason, task=SEND) -> bytes:
    """Add a job and park it."""
    job_id = add(store, task)
    [held] = store.apply(Turn(now=AT, slots=[Slot("mail", 1, 1)])).claims
    error = JobError("parked")
    outcome = Outcome(held.job, held.number, State.PARKED, AT, AT, None, error, parked_for=reason)
    store.apply(Turn(now=AT, outcomes=[outcome]))
    return job_id


def released(keeper, store, tasks=(SEND,), requests=()) -> list[bytes]:
    """Return what it releases until it has looked at all."""
    found: list[bytes] = []
    for _ in range(10):
        if not keeper.is_looking:
            break
        assert keeper.timeout_s(NOW) == 0
        request = keeper.release(store, tasks, requests)
        found += request.retry if request else ()
    assert not keeper.is_looking
    return found


def test_it_waits_with_parked_jobs_while_nothing_may_start(keeper):
    keeper.prune(NOW, AT)
    keeper.look_at_parked()
    assert keeper.timeout_s(NOW) == 0
    assert keeper.timeout_s(NOW, starts=False) == 30


@pytest.mark.parametrize(
    ("reason", "task", "may_run"),
    [
        (ParkedFor.UNKNOWN_TASK, SEND, True),
        (ParkedFor.BAD_ARGUMENTS, SEND, True),
        (ParkedFor.UNKNOWN_TASK, "shop.tasks:gone", False),
        (ParkedFor.UNREADABLE, SEND, False),
        (ParkedFor.INTERRUPTIONS, SEND, False),
        (ParkedFor.HELD, SEND, False),
        (ParkedFor.NOTHING, SEND, False),
    ],
)
def test_a_parked_job_is_released_when_its_reason_may_be_gone(keeper, store, reason, task, may_run):
    job = park(store, reason, task)
    keeper.look_at_parked()
    assert released(keeper, store) == [job] * may_run


def test_it_looks_only_when_it_is_told_to(keeper, store):
    park(store, ParkedFor.UNKNOWN_TASK)
    assert keeper.release(store, [SEND], []) is None
    assert not keeper.is_looking


def test_it_looks_at_many_parked_jobs_page_by_page_and_at_each_once(keeper, store):
    jobs = [park(store, ParkedFor.UNKNOWN_TASK) for _ in range(450)]
    keeper.look_at_parked()
    request = keeper.release(store, [SEND], [])
    assert (len(request.retry), keeper.is_looking) == (200, True)
    store.apply(Turn(now=AT, requests=[request]))
    assert sorted([*request.retry, *released(keeper, store)]) == sorted(jobs)


def test_parked_jobs_are_released_again_when_the_turn_that_was_to_do_it_failed(keeper, store):
    jobs = [park(store, ParkedFor.UNKNOWN_TASK) for _ in range(3)]
    keeper.look_at_parked()
    keeper.release(store, [SEND], [])
    keeper.look_again()
    assert sorted(released(keeper, store)) == sorted(jobs)
    keeper.learn(0, 0.0, is_full=False)
    keeper.look_again()
    assert not keeper.is_looking


def test_a_parked_job_that_the_same_turn_cancels_is_left_alone(keeper, store):
    job, other = (park(store, ParkedFor.UNKNOWN_TASK) for _ in range(2))
    keeper.look_at_parked()
    assert released(keeper, store, requests=[Request(cancel=[job])]) == [other]


def test_a_job_whose_record_cannot_be_read_stays_parked(keeper, store):
    job = NewJob(new_id(), SEND, "mail", 0, 0, b"damaged")
    store.apply(Turn(now=AT, requests=[Request(jobs=[job])]))
    [held] = store.apply(Turn(now=AT, slots=[Slot("mail", 1, 1)])).claims
    parked = Outcome(
        job.id, held.number, State.PARKED, AT, AT, None, JobError("?"), parked_for=ParkedFor.UNKNOWN_TASK
    )
    store.apply(Turn(now=AT, outcomes=[parked]))
    keeper.look_at_parked()
    assert released(keeper, store) == []

import asyncio
import functools
import math
import os
import re
import signal
import threading
import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobsched import job_id as ids
from jobsched import task
from jobsched.codec import decode_arguments, decode_record, encode_result
from jobsched.config import parse_config
from jobsched.dispatcher import Dispatcher, Job
from jobsched.errors import (
    ArgumentError,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NoRoom,
    PayloadTooLarge,
    ResultNotStored,
    ResultTimeout,
    StoreFull,
    Unavailable,
    UnknownCategory,
    UnknownTask,
)
from jobsched.gateway import Gateway
from jobsched.job import MAX_PAYLOAD, JobError, JobRecord, JobStatus, State
from jobsched.job_id import new_id
from jobsched.store.base import Accepted, NewJob, Outcome, Query, Refused, Request, Slot, StoredJob, Turn
from jobsched.store.lmdb import open_store

SEND = f"{__name__}:send"
NOW = 1_750_000_000_000_000
DAY_S = 86_400
CONFIG = "tasks = ['shop.tasks']\n[categories.mail]\n[categories.reports]\n"


class FixedClock:
    """A clock that stands still."""

    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class RecordingTransport:
    """Keeps what is sent; accepts it unless told otherwise."""

    def __init__(self) -> None:
        self.requests = []
        self.reply = Accepted()
        self.job: StoredJob | None = None

    def exchange(self, requests):
        self.requests += requests
        return [self.reply for _ in requests]

    def look(self, *_):
        return self.job

    @property
    def jobs(self) -> list[NewJob]:
        return [job for request in self.requests for job in request.jobs]

    @property
    def record(self) -> JobRecord:
        (job,) = self.jobs
        return decode_record(job.record)


@pytest.fixture
def config(tmp_path):
    return parse_config(CONFIG, tmp_path)


@pytest.fixture
def sent():
    return RecordingTransport()


@pytest.fixture
def jobs(config, sent):
    """A dispatcher whose requests are recorded."""
    return Dispatcher(config, transport=sent, clock=FixedClock())


@pytest.fixture
def direct(config):
    """A dispatcher that writes to a store of its own: no node runs."""
    dispatcher = Dispatcher(config)
    yield dispatcher
    dispatcher.close()


@pytest.fixture
def node(config, direct):
    """The store under `direct`, as a node has it."""
    direct.dispatch(send, args=("first",))  # makes the store
    store = open_store(config.store.path)
    yield store
    store.close()


@task(category="mail", priority=3, max_retries=5)
def send(to: str, subject: str = "") -> str:
    return to + subject


@task
def homeless() -> None: ...


def undecorated() -> None: ...


def run_first(store, state: State, *, result: bytes | None = None, error: JobError | None = None) -> None:
    """Claim the first job and end it."""
    (claim,) = store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1)])).claims
    store.apply(Turn(now=NOW, outcomes=[Outcome(claim.job, claim.number, state, NOW, NOW, result, error)]))


# What is sent.


def test_a_job_carries_all_that_its_run_needs(jobs, sent):
    job = jobs.dispatch(
        send, "reports", args=("ada",), kwargs={"subject": "hi"}, priority=-2, max_retries=1, name="a name"
    )
    (new,) = sent.jobs
    assert (new.id, new.task, new.category, new.priority) == (job._id, SEND, "reports", -2)
    assert new.due_at == 0
    record = sent.record
    assert (record.id, record.task, record.category, record.priority) == (
        new.id,
        new.task,
        new.category,
        new.priority,
    )
    assert (record.dispatched_at, record.max_retries, record.name) == (NOW, 1, "a name")
    assert decode_arguments(record) == (["ada"], {"subject": "hi"})


def test_the_tasks_own_category_and_priority_are_the_defaults(jobs, sent):
    jobs.dispatch(send, args=("ada",))
    assert (sent.record.category, sent.record.priority, sent.record.max_retries) == ("mail", 3, None)


def test_priority_zero_overrides_the_tasks_own(jobs, sent):
    jobs.dispatch(send, args=("ada",), priority=0)
    assert sent.record.priority == 0


def test_a_partial_adds_its_arguments_in_front(jobs, sent):
    partial = functools.partial(functools.partial(send, "ada"), subject="hi")
    jobs.dispatch(partial)
    jobs.dispatch(partial, kwargs={"subject": "bye"})
    first, second = (decode_record(job.record) for job in sent.jobs)
    assert decode_arguments(first) == (["ada"], {"subject": "hi"})
    assert decode_arguments(second) == (["ada"], {"subject": "bye"})


def test_a_known_name_has_the_tasks_defaults_and_its_signature(jobs, sent):
    jobs.dispatch(SEND, args=("ada",))
    assert (sent.record.category, sent.record.priority) == ("mail", 3)
    with pytest.raises(ArgumentError, match="missing a required argument: 'to'"):
        jobs.dispatch(SEND)


def test_a_name_that_this_process_does_not_know_needs_a_category(jobs, sent):
    with pytest.raises(InvalidOption, match=r"task 'shop\.tasks:send' has no category of its own"):
        jobs.dispatch("shop.tasks:send")
    jobs.dispatch("shop.tasks:send", "mail", args=(1,))
    assert (sent.record.task, sent.record.priority) == ("shop.tasks:send", 0)


# When it is due.


@pytest.mark.parametrize(
    ("delay", "micros"),
    [
        (0, None),
        (0.0, None),
        (timedelta(0), None),
        (5, 5_000_000),
        (0.25, 250_000),
        (1e-9, 0),
        (timedelta(minutes=2), 120_000_000),
        (50 * 366 * DAY_S, 50 * 366 * DAY_S * 1_000_000),
    ],
)
def test_a_delay_counts_from_the_dispatch(jobs, sent, delay, micros):
    jobs.dispatch(send, "mail", delay, args=("ada",))
    assert sent.jobs[0].due_at == (0 if micros is None else NOW + micros)


def test_a_prepared_jobs_delay_counts_from_its_dispatch(config, sent):
    clock = FixedClock()
    jobs = Dispatcher(config, transport=sent, clock=clock)
    prepared = jobs.prepare(send, delay=5, args=("ada",))
    clock.now = lambda: NOW + 1_000_000
    jobs.dispatch_many([prepared])
    assert sent.jobs[0].due_at == NOW + 6_000_000


@pytest.mark.parametrize(
    ("at", "due_at"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), 1_767_225_600_000_000),
        (datetime(2026, 1, 1, 2, 30, tzinfo=timezone(timedelta(hours=2.5))), 1_767_225_600_000_000),
        (datetime(1970, 1, 1, tzinfo=UTC), 1),
        (datetime(1900, 1, 1, tzinfo=UTC), 1),
    ],
)
def test_at_is_an_instant_and_one_in_the_past_is_due(jobs, sent, at, due_at):
    jobs.dispatch(send, args=("ada",), at=at)
    assert sent.jobs[0].due_at == due_at


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": -1}, "delay must not be negative, got -1"),
        ({"delay": timedelta(seconds=-1)}, "delay must not be negative"),
        ({"delay": math.nan}, "delay must be seconds or a timedelta, got nan"),
        ({"delay": math.inf}, "delay must be at most 50 years, got inf"),
        ({"delay": -math.inf}, "delay must not be negative"),
        ({"delay": 50 * 366 * DAY_S + 1}, "delay must be at most 50 years"),
        ({"delay": True}, "delay must be seconds or a timedelta, got True"),
        ({"delay": "5s"}, "delay must be seconds or a timedelta, got '5s'"),
        ({"delay": None}, "delay must be seconds or a timedelta, got None"),
        ({"at": datetime(2026, 1, 1)}, "at: .* has no time zone; pass an aware datetime"),  # noqa: DTZ001
        ({"at": "2026-01-01"}, "at must be an aware datetime, got '2026-01-01'"),
        ({"at": 1_767_225_600}, "at must be an aware datetime"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "delay": 1}, "pass delay or at, not both"),
        ({"priority": 30_001}, "priority must be a whole number from -30000 to 30000, got 30001"),
        ({"priority": -30_001}, "priority must be"),
        ({"priority": 1.5}, "priority must be"),
        ({"priority": True}, "priority must be"),
        ({"max_retries": -1}, r"max_retries must be a whole number .*, got -1"),
        ({"max_retries": 1.5}, "max_retries must be"),
        ({"max_retries": True}, "max_retries must be"),
        ({"name": ""}, "name must be 1 to 200 characters, got ''"),
        ({"name": "x" * 201}, "name must be 1 to 200 characters"),
        ({"name": 5}, "name must be 1 to 200 characters"),
        ({"delay": 10**400}, "delay must be at most 50 years"),
        ({"max_retries": 10**30}, "max_retries must be"),
        ({"name": "\ud800"}, "name must be"),
        ({"id": "0198"}, "id must be a UUID, got '0198'"),
        ({"id": ""}, "id must be a UUID"),
        ({"id": 5}, "id must be a UUID, got 5"),
        ({"id": b"0123456789abcdef"}, "id must be a UUID"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(jobs, sent, options, message):
    with pytest.raises(InvalidOption, match=message):
        jobs.dispatch(send, args=("ada",), **options)
    assert sent.requests == []


@pytest.mark.parametrize(
    "options",
    [{"priority": -30_000}, {"priority": 30_000}, {"max_retries": 0}, {"name": "x" * 200}],
)
def test_the_limits_themselves_are_accepted(jobs, sent, options):
    jobs.dispatch(send, args=("ada",), **options)
    ((field, value),) = options.items()
    assert getattr(sent.record, field) == value


# Tasks, categories, arguments.


@pytest.mark.parametrize(
    ("task_like", "message"),
    [
        ("tasks", "expected a task's name as module:function, got 'tasks'"),
        ("tasks:", "as module:function, got 'tasks:'"),
        (SEND.replace(":", "."), f", did you mean {SEND!r}?"),
        (":send", "as module:function, got ':send'"),
        ("shop tasks:send", "as module:function, got 'shop tasks:send'"),
        ("shop:tasks:send", "as module:function, got 'shop:tasks:send'"),
        ("shop..tasks:send", "as module:function, got 'shop..tasks:send'"),
        (undecorated, f"{__name__}:undecorated is not a task: put @task above it"),
        (lambda: 1, "cannot be imported by a worker"),
        (5, "task must be a task, a partial of one, or a name, got 5"),
        (None, "task must be a task, a partial of one, or a name, got None"),
        (homeless, f"task '{__name__}:homeless' has no category of its own: pass one"),
    ],
)
def test_what_is_no_task_here_is_refused(jobs, sent, task_like, message):
    with pytest.raises(InvalidOption, match=re.escape(message)):
        jobs.dispatch(task_like)
    assert sent.requests == []


def test_an_unknown_category_is_refused_with_the_nearest_name(jobs, sent):
    with pytest.raises(UnknownCategory, match=r"unknown category 'mial', did you mean 'mail'\?"):
        jobs.dispatch(send, "mial", args=("ada",))
    with pytest.raises(UnknownCategory, match="unknown category 'x'; known: mail, reports"):
        jobs.dispatch(send, "x", args=("ada",))
    assert sent.requests == []


@pytest.mark.parametrize("category", [5, 2.5, ["mail"]])
def test_a_category_that_is_no_text_is_refused(jobs, sent, category):
    with pytest.raises(InvalidOption, match="category"):
        jobs.dispatch(send, category, args=("ada",))
    assert sent.requests == []


@pytest.mark.parametrize("kwargs", ["ada", [("to", "ada")], 5, {1: "ada"}])
def test_keyword_arguments_of_an_unknown_task_need_names_too(jobs, sent, kwargs):
    with pytest.raises(ArgumentError, match="kwargs"):
        jobs.dispatch("shop.tasks:send", "mail", kwargs=kwargs)
    assert sent.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"args": "ada"}, "args must be a tuple or list of positional arguments, got 'ada'"),
        ({"args": b"ada"}, "args must be a tuple or list"),
        ({"args": {"to": "ada"}}, "args must be a tuple or list"),
        ({"args": 5}, "args must be a tuple or list"),
        ({"args": ("a", "b", "c")}, "too many positional arguments"),
        ({"kwargs": {"too": "ada"}}, "missing a required argument: 'to'"),
        ({"args": ("ada", object())}, f"args.subject of task '{SEND}': a builtins.object"),
    ],
)
def test_arguments_that_cannot_work_are_refused(jobs, sent, options, message):
    with pytest.raises(ArgumentError, match=message):
        jobs.dispatch(send, **options)
    assert sent.requests == []


def test_arguments_over_1_mib_are_refused(jobs, sent):
    with pytest.raises(PayloadTooLarge, match="the limit is 1,048,576"):
        jobs.dispatch(send, args=("x" * MAX_PAYLOAD,))
    assert sent.requests == []


# Many at once.


def test_many_jobs_are_one_request_in_their_order(jobs, sent):
    made = jobs.dispatch_many(jobs.prepare(send, args=(str(n),)) for n in range(50))
    assert len(sent.requests) == 1
    assert [job.id for job in sent.jobs] == [job._id for job in made]
    arguments = [decode_arguments(decode_record(job.record))[0] for job in sent.jobs]
    assert arguments == [[str(n)] for n in range(50)]


def test_no_jobs_at_all_are_no_request(jobs, sent):
    assert jobs.dispatch_many([]) == []
    with jobs.batch():
        pass
    assert sent.requests == []


def test_more_jobs_than_one_call_takes_are_refused_before_anything_is_sent(jobs, sent):
    prepared = jobs.prepare(send, args=("ada",))
    with pytest.raises(InvalidOption, match="one call takes up to 100,000 jobs or 64 MiB, got 100,001 jobs"):
        jobs.dispatch_many([prepared] * 100_001)
    assert sent.requests == []


def test_a_batch_with_an_exception_dispatches_nothing(jobs, sent):
    def fill() -> None:
        with jobs.batch() as batch:
            batch.dispatch(send, args=("ada",))
            raise KeyError

    with pytest.raises(KeyError):
        fill()
    assert sent.requests == []


def test_a_wrong_job_in_a_batch_dispatches_nothing(jobs, sent):
    def fill() -> None:
        with jobs.batch() as batch:
            batch.dispatch(send, args=("ada",))
            batch.dispatch(send, "mial", args=("bob",))

    with pytest.raises(UnknownCategory):
        fill()
    assert sent.requests == []


def test_a_batchs_handles_are_those_of_the_jobs_dispatched(jobs, sent):
    with jobs.batch() as batch:
        handles = [batch.dispatch(send, "reports", 5, args=(str(n),), priority=n) for n in range(3)]
        assert sent.requests == []
    assert [job.id for job in sent.jobs] == [handle._id for handle in handles]
    assert [(job.category, job.priority) for job in sent.jobs] == [("reports", n) for n in range(3)]


def test_a_coroutine_dispatches_and_gets_the_errors_at_once(jobs, sent):
    job = asyncio.run(jobs.adispatch(send, "mail", 5, args=("ada",), name="a name"))
    assert (sent.jobs[0].id, sent.record.name) == (job._id, "a name")
    with pytest.raises(UnknownCategory):
        asyncio.run(jobs.adispatch(send, "mial", args=("ada",)))


# Replies.


@pytest.mark.parametrize("kind", [UnknownCategory, UnknownTask, StoreFull, NoRoom, PayloadTooLarge])
def test_a_refusal_is_raised_as_the_error_that_it_names(jobs, sent, kind):
    sent.reply = Refused(kind.__name__, "the node's words")
    with pytest.raises(kind) as caught:
        jobs.dispatch(send, args=("ada",))
    assert str(caught.value) == "the node's words"


@pytest.mark.parametrize(
    ("state", "cause", "error"),
    [
        (State.FAILED, "KeyError: 5", JobFailed("ID", "failed", "KeyError: 5", "Traceback ...")),
        (State.PARKED, "unknown task", JobFailed("ID", "parked", "unknown task", "Traceback ...")),
        (State.QUARANTINED, None, JobFailed("ID", "quarantined", "", "")),
        (State.CANCELLED, None, JobCancelled("ID")),
        (State.COMPLETED, "over 1 MiB", ResultNotStored("ID", "over 1 MiB")),
        (State.PENDING, None, ResultTimeout("ID", "pending", 0.5)),
        (State.SCHEDULED, "KeyError: 5", ResultTimeout("ID", "scheduled", 0.5)),
        (State.IN_PROGRESS, None, ResultTimeout("ID", "in_progress", 0.5)),
    ],
)
def test_a_job_without_a_result_says_why(jobs, sent, state, cause, error):
    job = jobs.dispatch(send, args=("ada",))
    why = cause and JobError(cause, "Traceback ...")
    sent.job = StoredJob(id=job._id, status=JobStatus(state, "mail", 0), record=None, error=why)
    with pytest.raises(type(error)) as caught:
        job.result(timeout=0.5)
    assert str(caught.value) == str(error).replace("ID", job.id)
    assert vars(caught.value) == vars(error)


@pytest.mark.parametrize("value", [None, False, 0, "", {"rows": [1, 2]}])
def test_a_result_is_what_the_task_returned(jobs, sent, value):
    job = jobs.dispatch(send, args=("ada",))
    packed = None if value is None else encode_result(value)
    status = JobStatus(State.COMPLETED, "mail", 0)
    sent.job = StoredJob(id=job._id, status=status, record=None, result=packed)
    assert job.result() == value
    assert job.state() == "completed"


# Handles.


def test_handles_are_equal_by_job():
    first, second = new_id(), new_id()
    one, same, other = Job(None, first), Job(None, first), Job(None, second)
    assert one == same
    assert one != other
    assert one != first
    assert len({one, same, other}) == 2


def test_a_handle_shows_its_id(jobs):
    job = jobs.job("0198e0a0-0000-7000-8000-000000000001")
    assert repr(job) == "<Job 0198e0a0-0000-7000-8000-000000000001>"
    assert jobs.job("0198E0A0000070008000000000000001") == job


@pytest.mark.parametrize("text", ["", "0198", "no id", None])
def test_a_handle_needs_a_whole_id(jobs, text):
    with pytest.raises(InvalidOption, match="id must be a UUID"):
        jobs.job(text)


# Straight to the store.


def test_without_a_node_a_job_is_on_disk_when_dispatch_returns(direct, config):
    job = direct.dispatch(send, args=("ada",), delay=0)
    late = direct.dispatch(send, args=("bob",), delay=3600)
    assert (job.state(), late.state()) == ("pending", "scheduled")
    direct.close()
    again = Dispatcher(config)
    assert again.job(job.id).state() == "pending"
    again.close()


def test_the_same_id_dispatched_again_is_no_second_job(direct, node):
    key = "0198e0a0-0000-7000-8000-000000000001"
    jobs = [direct.dispatch(send, args=(to,), id=key) for to in ("ada", "bob")]
    assert jobs[0] == jobs[1]
    assert node.stats()["mail"][State.PENDING] == 2  # with the fixture's own
    assert decode_arguments(decode_record(node.get(jobs[0]._id).record))[0] == ["ada"]


def test_many_are_all_or_none_in_the_store(direct, node):
    with direct.batch() as batch:
        handles = [batch.dispatch(send, args=(str(n),)) for n in range(100)]
    assert {handle.state() for handle in handles} == {"pending"}
    with pytest.raises(ArgumentError):
        direct.dispatch_many(direct.prepare(send, args=("ada",) * n) for n in (1, 2, 3))
    assert node.stats()["mail"][State.PENDING] == 101


def test_a_job_that_waits_can_be_cancelled_and_one_that_ended_cannot(direct, node):
    pending = direct.dispatch(send, args=("ada",))
    scheduled = direct.dispatch(send, delay=3600, args=("ada",))
    run_first(node, State.COMPLETED)
    (first,) = node.find(Query(state=State.COMPLETED)).jobs
    unknown = direct.job("0198e0a0-0000-7000-8000-000000000001")
    assert [pending.cancel(), scheduled.cancel(), pending.cancel()] == [True, True, True]
    assert (pending.state(), scheduled.state()) == ("cancelled", "cancelled")
    assert (unknown.cancel(), Job(direct, first.id).cancel()) == (False, False)
    ids = [pending.id, unknown.id, Job(direct, first.id).id]
    assert direct.cancel(ids) == [State.CANCELLED, None, State.COMPLETED]
    with pytest.raises(JobCancelled):
        pending.result(timeout=0)


def test_a_result_is_read_from_the_store_without_a_node(direct, node):
    run_first(node, State.COMPLETED, result=encode_result("sent"))
    (first,) = node.find(Query(state=State.COMPLETED)).jobs
    assert Job(direct, first.id).result(timeout=5) == "sent"
    second = direct.dispatch(send, args=("ada",))
    with pytest.raises(ResultTimeout, match="is still pending after 0 s"):
        second.result(timeout=0)
    run_first(node, State.FAILED, error=JobError("KeyError: 5", "Traceback ..."))
    with pytest.raises(JobFailed, match="failed: KeyError: 5"):
        second.result(timeout=5)


def test_a_job_that_is_nowhere_is_not_found(direct, node):
    job = direct.job("0198e0a0-0000-7000-8000-000000000001")
    for look in (job.state, job.result):
        with pytest.raises(JobNotFound, match="no job '0198e0a0"):
            look()


def test_a_paused_category_starts_nothing_until_it_is_resumed(direct, node):
    direct.pause("mail")
    assert node.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1)])).claims == []
    direct.resume("mail")
    assert len(node.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1)])).claims) == 1
    for change in (direct.pause, direct.resume):
        with pytest.raises(UnknownCategory):
            change("mial")


def test_a_memory_store_needs_its_node(tmp_path):
    jobs = Dispatcher(parse_config("store = 'memory:'\n" + CONFIG, tmp_path))
    with pytest.raises(Unavailable, match="lives in its node"):
        jobs.dispatch(send, args=("ada",))


def test_threads_share_a_dispatcher(direct, node):
    made: list[Job] = []
    threads = [
        threading.Thread(target=lambda: made.extend(direct.dispatch(send, args=("ada",)) for _ in range(5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 40
    assert node.stats()["mail"][State.PENDING] == 41


# Forks.


def in_child(work, patience_s=5.0) -> bool:
    """Run something in a fork of this process; say whether it succeeded in time."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, patience_s)
        try:
            work()
        except BaseException:  # noqa: BLE001 (the child must not return into pytest)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status == 0


def test_a_forked_child_dispatches_on_a_connection_of_its_own(direct, node):
    key = "0198e0a0-0000-7000-8000-000000000001"
    assert in_child(lambda: direct.dispatch(send, args=("child",), id=key))
    assert direct.job(key).state() == "pending"
    parents = direct.dispatch(send, args=("parent",))
    assert parents.state() == "pending"
    assert node.stats()["mail"][State.PENDING] == 3


def test_a_fork_while_another_thread_holds_the_gateway_leaves_the_child_free(direct, node):
    key = "0198e0a0-0000-7000-8000-000000000001"
    with direct._transport._lock, direct._courier._lock:
        assert in_child(lambda: direct.dispatch(send, args=("child",), id=key))
    assert direct.job(key).state() == "pending"


def test_a_gateway_starts_afresh_in_a_child(config, node):
    gateway = Gateway(config.store.path, durable=True, quota_bytes=config.quota_bytes)
    gateway.exchange([Request(pause={"mail": 0})])
    with gateway._lock:
        assert in_child(lambda: gateway.exchange([Request(pause={"reports": 0})]))
    assert {name for name, stats in node.stats().items() if stats.paused} == {"mail", "reports"}
    gateway.close()


def test_a_fork_while_another_thread_makes_an_id_leaves_the_child_free(direct, node):
    with ids._ids._lock:
        assert in_child(lambda: direct.dispatch(send, args=("child",)), patience_s=0.5)
    assert node.stats()["mail"][State.PENDING] == 2

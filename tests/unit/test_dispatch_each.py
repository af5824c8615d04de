import functools
from itertools import repeat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched import Dispatcher, Unique, api, task
from jobsched.bulk import new_jobs
from jobsched.codec import RecordForm, decode_arguments, decode_record, encode_record
from jobsched.config import parse_config
from jobsched.errors import (
    ArgumentError,
    InvalidOption,
    PayloadTooLarge,
    QueueFull,
    UnknownCategory,
    UnknownTask,
)
from jobsched.job import MAX_PAYLOAD, JobRecord, Terms
from jobsched.job_id import new_id, new_ids
from jobsched.request_size import MAX_REQUEST_BYTES, MAX_REQUEST_JOBS
from jobsched.store.base import Accepted, Refused
from jobsched.terms import ConcurrencyLimit
from jobsched.testing import LocalApp

NOW = 1_750_000_000_000_000
MIB = 1 << 20


class FixedClock:
    """A clock that stands still."""

    def now(self) -> int:
        return NOW


class RecordingTransport:
    """Keeps what is sent; answers with the replies given, in their order."""

    def __init__(self) -> None:
        self.requests = []
        self.replies = []

    def exchange(self, requests):
        self.requests += requests
        return [self.replies.pop(0) if self.replies else Accepted() for _ in requests]


@pytest.fixture
def sent():
    return RecordingTransport()


@pytest.fixture
def jobs(sent, tmp_path):
    text = "tasks = ['shop.tasks']\n[categories.mail]\nmax_pending = 500_000\n[categories.reports]\n"
    config = parse_config(text, tmp_path)
    return Dispatcher(config, transport=sent, clock=FixedClock())


@task(category="mail", priority=3, max_running=7)
def send(to: str, subject: str = "") -> str:
    return to + subject


@task(category="mail")
def pick(*, named: str) -> str:
    return named


def without_ids(new):
    """Return jobs as requests carry them, all with the same id."""
    blank = bytes(16)
    records = [msgspec.structs.replace(decode_record(job.record), id=blank) for job in new]
    return [
        msgspec.structs.replace(job, id=blank, record=encode_record(record))
        for job, record in zip(new, records, strict=True)
    ]


EACH = [("ada",), ["grace", "hi"], {"to": "edith"}, ("ö" * 300, "")]
OPTIONS = {
    "none": {},
    "plain": {"category": "reports", "priority": -2, "max_retries": 1, "timeout": 3, "name": "label"},
    "delay": {"delay": 2.5},
    "expiry": {"expires_in": 60},
    "terms": {"limit": ConcurrencyLimit("db", 2), "at_most_once": True},
    "unique": {"unique": Unique(on_conflict="replace", until="start")},
    "key": {"unique": "key", "expires_in": 5},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("each", [EACH, EACH[:1] * 3], ids=["mixed", "alike"])
@pytest.mark.parametrize("name", [None, "shop.tasks:elsewhere"], ids=["known", "by name"])
def test_each_job_is_what_a_dispatch_of_its_own_makes(jobs, sent, options, each, name):
    task = send if name is None else name
    options = {"category": "mail", **options}
    handles = jobs.dispatch_each(task, iter(each), **options)
    for one in each:
        given = {"kwargs": one} if isinstance(one, dict) else {"args": one}
        jobs.dispatch(task, **options, **given)
    together, *alone = sent.requests
    assert [handle._id for handle in handles] == [job.id for job in together.jobs]
    assert without_ids(together.jobs) == without_ids([job for request in alone for job in request.jobs])
    assert msgspec.structs.replace(together, jobs=()) == msgspec.structs.replace(alone[0], jobs=())


def test_the_arguments_of_a_partial_stand_before_the_own_ones(jobs, sent):
    jobs.dispatch_each(functools.partial(send, "ada", subject="hi"), [(), {"subject": "oh"}])
    records = [decode_record(job.record) for job in sent.requests[0].jobs]
    assert [decode_arguments(record) for record in records] == [
        (["ada"], {"subject": "hi"}),
        (["ada"], {"subject": "oh"}),
    ]


def test_none_makes_no_request(jobs, sent):
    assert jobs.dispatch_each(send, []) == []
    assert sent.requests == []


# What is wrong is named by its place, and nothing is dispatched.


@pytest.mark.parametrize(
    ("wrong", "task", "message"),
    [
        ("ada", send, r"arguments\[450\]: args must be a tuple or list"),
        (5, send, r"arguments\[450\]: args must be a tuple or list"),
        ((), send, r"arguments\[450\]: task .*: missing a required argument: 'to'"),
        (("a", "b", "c"), send, r"arguments\[450\]: task .*: too many positional"),
        ({"too": "a"}, send, r"arguments\[450\]: task .*: missing a required argument"),
        ({1: "a"}, send, r"arguments\[450\]: kwargs must be a dict of arguments by name"),
        (
            (["a", object()],),
            send,
            r"arguments\[450\]: args\.to\[1\] of task .*: a builtins\.object cannot be",
        ),
        ((2**70,), "m:t", r"arguments\[450\]: args\[0\] of task 'm:t'"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_dispatched(jobs, sent, wrong, task, message):
    with pytest.raises(ArgumentError, match=message):
        jobs.dispatch_each(task, [*repeat(("ada",), 450), wrong, ("grace",)], "mail")
    assert sent.requests == []


def test_what_has_to_be_named_is_checked(jobs, sent):
    with pytest.raises(ArgumentError, match=r"arguments\[0\].*missing a required"):
        jobs.dispatch_each(pick, [()])
    jobs.dispatch_each(pick, [{"named": "a"}])
    assert len(sent.requests) == 1


def test_too_large_arguments_are_named(jobs, sent):
    with pytest.raises(PayloadTooLarge) as caught:
        jobs.dispatch_each(send, [("ada",), ("x" * (MAX_PAYLOAD + 1),)])
    assert caught.value.__notes__ == ["these are arguments[1]"]
    assert sent.requests == []


def test_options_are_checked_before_arguments_are_taken(jobs):
    def never():
        raise AssertionError
        yield ()

    with pytest.raises(UnknownCategory):
        jobs.dispatch_each(send, never(), "mial")
    with pytest.raises(InvalidOption, match="delay must not be negative"):
        jobs.dispatch_each(send, never(), delay=-1)
    with pytest.raises(UnknownTask):
        jobs.dispatch_each("jobsched.tasks.shell:shell", [("a",)], "mail")


# Limits.


def test_as_many_as_a_request_may_have_are_one_request(jobs, sent):
    handles = jobs.dispatch_each(send, repeat(("ada",), MAX_REQUEST_JOBS))
    assert len(handles) == MAX_REQUEST_JOBS
    assert [len(request.jobs) for request in sent.requests] == [MAX_REQUEST_JOBS]


def test_more_are_several_requests_and_none_is_left_out(jobs, sent):
    handles = jobs.dispatch_each(send, ((f"{place}",) for place in range(MAX_REQUEST_JOBS + 250)))
    assert [len(request.jobs) for request in sent.requests] == [MAX_REQUEST_JOBS, 250]
    ids = [job.id for request in sent.requests for job in request.jobs]
    assert [handle._id for handle in handles] == ids == sorted(set(ids))
    last = decode_record(sent.requests[1].jobs[-1].record)
    assert decode_arguments(last)[0] == [f"{MAX_REQUEST_JOBS + 249}"]


def test_no_request_is_over_its_bytes_and_each_is_filled(jobs, sent):
    long = "x" * (MIB - 100)
    jobs.dispatch_each(send, repeat((long,), 130))
    sizes = [sum(len(job.record) for job in request.jobs) for request in sent.requests]
    assert max(sizes) <= MAX_REQUEST_BYTES
    assert [len(request.jobs) for request in sent.requests] == [64, 64, 2]


def test_an_error_says_how_many_were_dispatched_before(jobs, sent):
    sent.replies = [Accepted(), Refused("QueueFull", "the queue is full")]
    with pytest.raises(QueueFull) as caught:
        jobs.dispatch_each(send, repeat(("ada",), MAX_REQUEST_JOBS + 1))
    assert caught.value.__notes__ == ["100,000 jobs had been dispatched before"]


def test_the_handle_is_that_of_the_job_that_stands_for_a_new_one(jobs, sent):
    holder = new_id()
    sent.replies = [Accepted(kept={1: holder})]
    handles = jobs.dispatch_each(send, [("ada",), ("ada",)], unique=Unique())
    assert [handle._id for handle in handles] == [sent.requests[0].jobs[0].id, holder]


# The other ways to it.


def test_the_testing_kit_sees_them_and_runs_them():
    with LocalApp(categories=["mail", "reports"]) as app, app.installed():
        jobs = send.options(category="reports").dispatch_each([("ada",), {"to": "grace"}])
        jobs += api.dispatch_each(send, [("edith", "!")], "mail", 5)
        assert [one.job for one in app.assert_dispatched(send, times=3)] == jobs
        app.assert_dispatched(send, args=("edith", "!"), category="mail")
        app.run_due("5s")
        assert [job.result() for job in jobs] == ["ada", "grace", "edith!"]


# The parts.


@given(
    st.lists(st.lists(st.integers() | st.text() | st.binary(), max_size=3), max_size=5),
    st.text(),
    st.integers(-30_000, 30_000),
    st.none() | st.text(),
    st.none() | st.floats(0.001, 100),
)
def test_records_of_a_form_are_those_encoded_one_by_one(each, task, priority, name, timeout_s):
    encode = msgspec.msgpack.Encoder().encode
    args = [encode([str(part) for part in one]) for one in each]

    def record(job_id: bytes, args: bytes, kwargs: bytes) -> bytes:
        return encode_record(
            JobRecord(
                job_id,
                task,
                "mail",
                priority,
                NOW,
                msgspec.Raw(args),
                msgspec.Raw(kwargs),
                name,
                2,
                timeout_s,
            )
        )

    mark = new_id()
    form = RecordForm(record(mark, mark, b""), mark)
    ids = new_ids(len(args))
    expected = [record(job_id, one, b"\x80") for job_id, one in zip(ids, args, strict=True)]
    assert form.encode_all(ids, [one + b"\x80" for one in args]) == expected


def test_jobs_are_made_as_their_arguments_come(jobs, sent):
    draft = jobs.prepare(send, args=("ada",)).draft
    taken = []
    each = (taken.append(place) or (f"{place}",) for place in range(MAX_REQUEST_JOBS * 3))
    first = next(new_jobs(draft, each, NOW, (), {}))
    assert len(first) == MAX_REQUEST_JOBS
    assert len(taken) < MAX_REQUEST_JOBS * 1.01
    assert first[0].terms == Terms(limits=draft.common_terms.limits)

"""Stores to hold to the contract, and jobs to put into them."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, settings

from jobsched.codec import encode_record
from jobsched.job import JobRecord
from jobsched.job_id import new_id
from jobsched.store import lmdb
from jobsched.store.base import JobStore, NewJob
from jobsched.store.memory import MemoryStore

OPEN: dict[str, Callable[[Path], JobStore]] = {
    "memory": lambda _path: MemoryStore(),
    "lmdb": lmdb.open_store,
}
DURABLE = ["lmdb"]

# The same examples in every run of the same code, so that a change is what breaks the test: hypothesis
# draws from the constants of the modules too. JOBSCHED_HYPOTHESIS=long for a soak of others: half an hour.
PHASES = set(Phase) - {Phase.explain}  # takes minutes to say which parts of an example do not matter
COMMON = settings(deadline=None, phases=PHASES)
settings.register_profile("quick", COMMON, max_examples=80, stateful_step_count=40, derandomize=True)
settings.register_profile("long", COMMON, max_examples=2000, stateful_step_count=60)


@pytest.fixture(scope="session")
def profile():
    """The settings of the model test."""
    return settings.get_profile(os.environ.get("JOBSCHED_HYPOTHESIS", "quick"))


@pytest.fixture(params=list(OPEN))
def store(request, tmp_path):
    """An empty store of each kind."""
    opened = OPEN[request.param](tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(params=DURABLE)
def open_durable(request):
    """What opens a durable store of each kind in a directory."""
    return OPEN[request.param]


@pytest.fixture
def reopen(open_durable, tmp_path):
    """A function that opens one and the same durable store, after closing it where it is open."""
    opened: list[JobStore] = []

    def open_again() -> JobStore:
        while opened:
            opened.pop().close()
        opened.append(open_durable(tmp_path / "store"))
        return opened[0]

    yield open_again
    while opened:
        opened.pop().close()


@pytest.fixture(scope="session")
def new_job():
    """A function that makes jobs to add, with a record as a dispatcher writes it."""

    def make(
        category="mail", *, priority=0, due_at=0, job_id=None, argument=0, terms=None, on_conflict="keep"
    ):
        job_id = job_id or new_id()
        record = JobRecord(
            id=job_id,
            task="shop.tasks:send",
            category=category,
            priority=priority,
            dispatched_at=1,
            args=msgspec.Raw(msgspec.msgpack.encode([argument])),
            kwargs=msgspec.Raw(msgspec.msgpack.encode({})),
        )
        return NewJob(
            job_id, record.task, category, priority, due_at, encode_record(record), terms, on_conflict
        )

    return make

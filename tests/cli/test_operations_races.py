"""What delete and prune do with jobs that others move between the look at them and the change."""

import contextlib
from functools import partial

import msgspec
import pytest

from jobsched.cli import changes, operations
from jobsched.cli import prune as pruning
from jobsched.cli.where import parse_where
from jobsched.codec import encode_record
from jobsched.config import load_config
from jobsched.job import JobError, JobRecord, State
from jobsched.job_id import new_id
from jobsched.store.base import NewJob, Outcome, Request, Slot, Turn
from jobsched.store.lmdb import open_store

NOW = 1_790_000_000_000_000
DAY = 86_400_000_000
EMPTY = msgspec.Raw(msgspec.msgpack.encode([]))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "categories.toml").write_text("tasks = ['shop']\n[categories.mail]\n")
    return load_config(tmp_path / "categories.toml")


@pytest.fixture
def store(config):
    with contextlib.closing(open_store(config.store.path)) as opened:
        yield opened


def fail(store, job_id, now):
    """Run a pending job, and let it fail for good."""
    [claim] = store.apply(Turn(now=now, slots=[Slot("mail", 1, 1)])).claims
    assert claim.job == job_id
    outcome = Outcome(job_id, claim.number, State.FAILED, now, now, error=JobError("no"))
    store.apply(Turn(now=now, outcomes=[outcome]))


@pytest.fixture
def failed(store):
    """The id of a job that failed a day ago."""
    job_id = new_id()
    record = JobRecord(
        id=job_id, task="a:b", category="mail", priority=0, dispatched_at=1, args=EMPTY, kwargs=EMPTY
    )
    job = NewJob(job_id, record.task, "mail", 0, 0, encode_record(record))
    store.apply(Turn(now=NOW - DAY, requests=[Request(jobs=[job])]))
    fail(store, job_id, NOW - DAY)
    return job_id


def retry(store, job_id, now=NOW):
    store.apply(Turn(now=now, requests=[Request(retry=[job_id])]))


def test_a_job_that_failed_again_since_prune_looked_is_kept(config, store, failed):
    rule = pruning._Rule(state=State.FAILED, old=NOW - DAY // 2, keep=None, over=0, both=False)
    retry(store, failed)
    fail(store, failed, NOW)
    assert pruning._delete(config, store, rule, bytearray(failed), quiet=True) == 0
    assert store.get(failed).status.ended_at == NOW


@pytest.mark.parametrize("is_retried", [True, False])
def test_a_job_that_was_retried_since_delete_looked_is_kept(config, store, failed, monkeypatch, is_retried):
    found = changes.selected

    def selected(*words):
        for page in found(*words):
            yield page
            if is_retried and page:
                retry(store, failed)  # as another operator does while the walk goes on

    monkeypatch.setattr(changes, "selected", selected)
    settings = changes.Settings(config=config, dry_run=False, yes=True, json_output=True)
    where = parse_where(["state=failed"], NOW)
    change = partial(changes.change_where, operations.DELETE, settings)
    with changes.dispatching(config) as dispatcher:
        done = change(dispatcher, where)
    assert (done.matched, done.changed) == (1, not is_retried)
    assert (store.get(failed) is not None) == is_retried

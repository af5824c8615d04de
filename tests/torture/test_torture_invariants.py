"""The invariants of a store are seen to be broken when they are."""

import random
import re

import pytest
from invariants import problems, read_environment
from random_turns import RandomTurns

from jobsched.store.lmdb import open_store


@pytest.fixture
def store(tmp_path):
    load = RandomTurns(random.Random(1), "run")
    opened = open_store(tmp_path / "store")
    for _ in range(40):
        turn = load.next()
        load.learn(turn, opened.apply(turn))
    yield opened
    opened.close()


def test_a_sound_store_has_no_problems(store):
    assert problems(read_environment(store._env)) == []


@pytest.mark.parametrize(
    ("database", "found"),
    [
        ("running", "stands in 0 indexes"),
        ("ended", "stands in 0 indexes"),
        ("statuses", "which is no job"),
        ("jobs", "has no record"),
        ("categories", "has .* jobs and no row"),
        ("meta", "the last one given is 0"),
    ],
)
def test_a_row_that_is_missing_is_noticed(store, database, found):
    key = b"counters" if database == "meta" else next(iter(read_environment(store._env).rows(database)))
    with store._env.begin(write=True) as txn:
        txn.delete(key, db=getattr(store._dbs, database))
    assert any(re.search(found, text) for text in problems(read_environment(store._env)))


def test_a_row_that_is_damaged_is_noticed(store):
    with store._env.begin(write=True) as txn:
        cursor = txn.cursor(db=store._dbs.statuses)
        assert cursor.first()
        cursor.put(cursor.key(), cursor.value()[:-1] + b"\xff\xff")
    assert any("unreadable" in text for text in problems(read_environment(store._env)))

"""What the LMDB store promises beyond the contract: its files, its format, its environment."""

import os
import stat

import lmdb as engine
import msgspec
import pytest

from jobsched.errors import StoreError, StoreFormatError, StoreFull, StoreUnsafe
from jobsched.job import Limit, State, Terms
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import Accepted, Outcome, Query, Refused, Request, Slot, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.retention import Prune

NOW = 1_000_000


@pytest.fixture
def place(tmp_path):
    return tmp_path / "store"


def change(place, database, key, value):
    """Write a row behind the store's back."""
    with engine.open(str(place), max_dbs=32, map_size=1 << 30) as env:
        table = env.open_db(database.encode())
        with env.begin(write=True, db=table) as txn:
            txn.put(key, value)


@pytest.mark.parametrize("found", [str(layout.FORMAT + 1).encode(), b"jobs of another program"])
def test_a_store_of_a_newer_or_foreign_format_is_refused_and_left_alone(place, found):
    open_store(place).close()
    change(place, "meta", b"format", found)
    before = (place / "data.mdb").read_bytes()
    for _ in range(2):
        with pytest.raises(StoreFormatError, match=r"has format .* upgrade jobsched"):
            open_store(place)
    assert (place / "data.mdb").read_bytes() == before


def test_a_file_that_is_no_store_is_refused(place):
    place.mkdir(mode=0o700)
    (place / "data.mdb").write_bytes(b"no pages of LMDB " * 1000)
    with pytest.raises(StoreError, match="cannot open the store"):
        open_store(place)


def test_only_the_owner_can_read_a_store(place):
    before = os.umask(0)
    try:
        open_store(place).close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.iterdir())}
    assert modes == {"store": 0o700, "data.mdb": 0o600, "lock.mdb": 0o600}


def test_a_store_that_others_can_write_is_refused(place):
    open_store(place).close()
    place.chmod(0o777)
    with pytest.raises(StoreUnsafe, match=r"can be written by others \(mode 777\): chmod 700"):
        open_store(place)


def test_a_store_opened_twice_is_one_and_needs_two_closes(place, new_job):
    first, second = open_store(place), open_store(place)
    assert first is second
    first.close()
    assert second.apply(Turn(now=NOW, requests=[Request(jobs=[new_job()])])).replies == [Accepted([])]
    second.close()


def test_a_full_store_refuses_jobs_and_lets_the_others_end(place, new_job, monkeypatch):
    monkeypatch.setattr("jobsched.store.lmdb_env._MAP_SIZE", 1 << 20)
    store = open_store(place)
    jobs = [new_job() for _ in range(40)]
    store.apply(Turn(now=NOW, requests=[Request(jobs=jobs)]))
    big = Request(jobs=[new_job() for _ in range(20_000)])
    result = store.apply(
        Turn(now=NOW, requests=[big, Request(pause={"mail": 0})], slots=[Slot("mail", 1, 0)])
    )
    refused, accepted = result.replies
    assert isinstance(refused, Refused)
    assert refused.kind == StoreFull.__name__
    assert accepted == Accepted([])
    assert store.stats()["mail"].paused
    assert store.stats()["mail"][State.PENDING] == len(jobs)
    store.close()


def as_made(request: Request) -> Request:
    return request


def as_sent(request: Request) -> Request:
    """Return a request as a node has it: what it leaves out is there too, and empty."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request)


@pytest.fixture
def full(place, new_job, monkeypatch):
    """A store that is nearly full of completed jobs, two on a page, and their ids."""
    monkeypatch.setattr("jobsched.store.lmdb_env._MAP_SIZE", 4 << 20)
    store = open_store(place)
    jobs = [new_job(argument="x" * 1400) for _ in range(800)]
    for start in range(0, len(jobs), 20):
        store.apply(Turn(now=NOW, requests=[Request(jobs=jobs[start : start + 20])]))
    while claims := store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 20)])).claims:
        done = [
            Outcome(held.job, held.number, State.COMPLETED, NOW, NOW + held.number % 2) for held in claims
        ]
        store.apply(Turn(now=NOW, outcomes=done))
    yield store, [job.id for job in jobs]
    store.close()


@pytest.mark.parametrize("came", [as_made, as_sent], ids=["as made", "as sent"])
def test_deletions_make_room_in_a_full_store_however_many_they_are(full, new_job, came):
    store, ids = full
    doomed = ids[::2]
    assert store.apply(Turn(now=NOW, requests=[came(Request(delete=doomed))])).replies == [
        Accepted([None] * len(doomed))
    ]
    assert store.stats()["mail"][State.COMPLETED] == len(ids) - len(doomed)
    assert store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job()])])).replies == [Accepted()]


def test_retention_makes_room_in_a_full_store(full, new_job):
    store, ids = full
    order = Prune(state=State.COMPLETED, before=NOW + 1, keep=None, settled=0, limit=len(ids))
    assert store.apply(Turn(now=NOW + 1, prune=[order])).pruned == len(ids) // 2
    assert store.stats()["mail"][State.COMPLETED] == len(ids) // 2
    assert store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job()])])).replies == [Accepted()]


@pytest.mark.parametrize("state", [State.PENDING, State.SCHEDULED, State.IN_PROGRESS])
def test_a_job_whose_status_is_damaged_is_parked_and_still_counted(place, new_job, state):
    store = open_store(place)
    job = new_job(due_at=NOW + 1 if state is State.SCHEDULED else 0)
    store.apply(Turn(now=NOW, requests=[Request(jobs=[job])]))
    if state is State.IN_PROGRESS:
        store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 1)]))
    store.close()
    change(place, "statuses", job.id, b"\x01damaged")
    store = open_store(place)
    store.recover(NOW)
    result = store.apply(Turn(now=NOW + 1, release=9, slots=[Slot("mail", 1, 9)]))
    assert result.claims == []
    counts = result.stats["mail"].counts
    assert (sum(counts), counts[State.PARKED]) == (1, 1)
    [found] = store.find(Query(state=State.PARKED)).jobs
    assert found.id == job.id
    assert "damaged" in found.error.cause
    store.close()


def test_a_job_whose_status_is_damaged_keeps_no_unique_key_from_others(place, new_job):
    terms = Terms(unique=b"u" * 16)
    job, other = new_job(terms=terms), new_job(terms=terms)
    store = open_store(place)
    store.apply(Turn(now=NOW, requests=[Request(jobs=[job])]))
    store.close()
    change(place, "statuses", job.id, b"\x01damaged")
    store = open_store(place)
    store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 9)]))
    store.apply(Turn(now=NOW, requests=[Request(delete=[job.id])]))
    assert store.apply(Turn(now=NOW, requests=[Request(jobs=[other])])).replies == [Accepted()]
    assert store.get(other.id) is not None
    store.close()


def test_a_damaged_count_of_a_limit_holds_nobody_up(place, new_job):
    limit = Limit(b"k" * 16, 1)
    job = new_job(terms=Terms(limits=(limit,)))
    store = open_store(place)
    store.apply(Turn(now=NOW, requests=[Request(jobs=[job])]))
    store.close()
    change(place, "limits", limit.key, b"\x01damaged")
    store = open_store(place)
    [held] = store.apply(Turn(now=NOW, slots=[Slot("mail", 1, 9)])).claims
    assert held.job == job.id
    store.close()

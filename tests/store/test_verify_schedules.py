"""What `verify` finds in damaged schedules, and how they behave."""

import msgspec
import pytest
from damage import changing, encoded

from jobsched.codec import unseal
from jobsched.firing import fire
from jobsched.job_id import new_id
from jobsched.schedule import PutSchedule, Schedule, ScheduleState
from jobsched.store.base import Request, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.verify import verify

SECOND = 1_000_000
NOW = 1_900_000_000 * SECOND
LONG = Schedule(
    name="long",
    task="t:t",
    category="mail",
    trigger=["every", SECOND, NOW],
    args=msgspec.msgpack.encode(["x" * 5000]),
)
ONCE = Schedule(name="once", task="t:t", category="mail", trigger=["once", NOW])


@pytest.fixture
def place(tmp_path):
    """A store with a schedule that has fired and waits, and one that has ended."""
    store = open_store(tmp_path / "store")
    puts = [PutSchedule(schedule, NOW, NOW, 0) for schedule in (LONG, ONCE)]
    store.apply(Turn(now=NOW - SECOND, requests=[Request(schedules=puts)]))
    for at in (NOW, NOW + SECOND):
        store.apply(Turn(now=at, firings=[fire(stored, at, new_id) for stored in store.due_schedules(at, 9)]))
    store.close()
    return tmp_path / "store"


def rekey(txn, db, key, new):
    txn.put(new, txn.pop(key, db=db), db=db)


def damaged_definition(txn, dbs):
    txn.put(b"once", b"\x01damaged", db=dbs.schedules)


def definition_of_another(txn, dbs):
    txn.put(b"once", txn.get(b"once", db=dbs.schedules), db=dbs.schedules)
    rekey(txn, dbs.schedules, b"once", b"twice")
    rekey(txn, dbs.schedule_states, b"once", b"twice")


def missing_definition(txn, dbs):
    txn.delete(b"once", db=dbs.schedules)


def orphaned_chunk(txn, dbs):
    txn.put(b"long\0\x63", b"chunk", db=dbs.schedules)


def missing_state(txn, dbs):
    txn.delete(b"once", db=dbs.schedule_states)


def damaged_state(txn, dbs):
    txn.put(b"once", b"\x01damaged", db=dbs.schedule_states)


def missing_place(txn, dbs):
    txn.drop(dbs.timetable, delete=False)


def other_place(txn, dbs):
    txn.put(b"\0" + NOW.to_bytes(8, "big") + b"long", b"", db=dbs.timetable)


def place_of_none(txn, dbs):
    txn.put(b"\0" + NOW.to_bytes(8, "big") + b"gone", b"", db=dbs.timetable)


def damaged_firing(txn, dbs):
    txn.put(b"once\0" + NOW.to_bytes(8, "big"), b"\x01damaged", db=dbs.firings)


def firing_of_another_time(txn, dbs):
    old = b"once\0" + NOW.to_bytes(8, "big")
    rekey(txn, dbs.firings, old, b"once\0" + (NOW + 1).to_bytes(8, "big"))


def firing_of_none(txn, dbs):
    old = b"once\0" + NOW.to_bytes(8, "big")
    txn.put(b"gone\0" + NOW.to_bytes(8, "big"), txn.get(old, db=dbs.firings), db=dbs.firings)


def other_count(txn, dbs):
    state = msgspec.msgpack.decode(unseal(txn.get(b"long", db=dbs.schedule_states)), type=ScheduleState)
    state.kept += 1
    txn.put(b"long", encoded(state), db=dbs.schedule_states)


FAULTS = [
    (damaged_definition, "damaged", "the schedule 'once' is unreadable"),
    (definition_of_another, "misplaced", "under the name 'twice' is the schedule 'once'"),
    (missing_definition, "orphan", "the state of a schedule 'once' that is not in the store"),
    (orphaned_chunk, "orphan", "a chunk in 'schedules' belongs to nothing"),
    (missing_state, "misplaced", "the schedule 'once' has no state"),
    (damaged_state, "damaged", "the state of schedule 'once' is unreadable"),
    (missing_place, "misplaced", "the schedule 'long' has no row in 'timetable': it never fires"),
    (other_place, "misplaced", "the schedule 'long' has a row in 'timetable' that is not its own"),
    (place_of_none, "orphan", "a row in 'timetable' is of a schedule 'gone' that is not in the store"),
    (damaged_firing, "damaged", "the record of a firing of schedule 'once' is unreadable"),
    (firing_of_another_time, "misplaced", "a firing of schedule 'once' is that of another due time"),
    (firing_of_none, "orphan", "a firing of a schedule 'gone' that is not in the store"),
    (other_count, "count", "the schedule 'long' counts 3 firings, its rows are 2"),
]


@pytest.mark.parametrize(("fault", "kind", "text"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_of_schedules_is_found_and_named(place, fault, kind, text):
    assert verify(place).findings == []
    with changing(place) as (txn, dbs):
        fault(txn, dbs)
    found = [finding for finding in verify(place).findings if text in finding.text]
    assert [finding.kind for finding in found] == [kind]


@pytest.mark.parametrize("fault", [damaged_definition, damaged_state, missing_definition, place_of_none])
def test_a_damaged_schedule_stands_in_nobodys_way(place, fault):
    with changing(place) as (txn, dbs):
        fault(txn, dbs)
    store = open_store(place)
    at = NOW + 5 * SECOND
    [due] = store.due_schedules(at, 9)
    assert due.schedule.name == "long"
    result = store.apply(Turn(now=at, firings=[fire(due, at, new_id)]))
    assert [name for name, _ in result.fired] == ["long"]
    store.close()

"""The stores of all released formats: they open, hold what they held, and can be worked off."""

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import sys

import pytest
from golden.golden_stores import FORMATS, expected, unpack
from golden.make_golden import TRACEBACK, UNIQUE, content, make

from jobsched.errors import StoreError, StoreFormatError
from jobsched.job import State
from jobsched.store import lmdb_layout as layout
from jobsched.store import migrate as module
from jobsched.store.base import Outcome, Query, Request, Slot, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.lmdb_layout import Databases
from jobsched.store.verify import verify

NOW = 1_900_000_000_000_000
NEXT = layout.FORMAT + 1


def holds(found, wanted):
    """Say whether a value holds all that an older one did: fields may have been added."""
    if isinstance(wanted, dict):
        return all(key in found and holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return found == wanted


def work_off(store):
    """Run everything that can be run, as a node would."""
    worker = store.recover(NOW).epoch << 32
    store.apply(Turn(now=NOW, requests=[Request(resume=["reports"])], release=100))
    while True:
        slots = [Slot(name, worker, 50) for name in store.stats()]
        claims = store.apply(Turn(now=NOW, slots=slots)).claims
        if not claims:
            break
        done = [Outcome(claim.job, claim.number, State.COMPLETED, NOW, NOW + 1, b"\xc0") for claim in claims]
        assert store.apply(Turn(now=NOW, outcomes=done)).lost == []


def test_there_is_a_golden_store_of_every_format():
    assert list(range(1, layout.FORMAT + 1)) == FORMATS


@pytest.mark.parametrize("number", FORMATS)
def test_a_store_of_each_format_holds_what_it_held(tmp_path, number):
    with contextlib.closing(open_store(unpack(number, tmp_path / "store"))) as store:
        wanted = expected(number)
        found = content(store)
        for part in ("stats", "order", "decisions"):
            assert holds(found[part], wanted[part])
        for job, held in wanted["jobs"].items():
            assert holds(found["jobs"][job], held), (found["jobs"][job], held)
        assert holds(found["schedules"], wanted.get("schedules", {}))
    assert verify(tmp_path / "store").findings == []


@pytest.mark.parametrize("number", FORMATS)
def test_a_store_of_each_format_is_worked_off(tmp_path, number):
    with contextlib.closing(open_store(unpack(number, tmp_path / "store"))) as store:
        counts = [sum(row.counts) for row in store.stats().values()]
        waiting = sum(sum(row.counts[:3]) for row in store.stats().values())
        completed = sum(row[State.COMPLETED] for row in store.stats().values())
        work_off(store)
        assert [sum(row.counts) for row in store.stats().values()] == counts
        assert sum(row[State.COMPLETED] for row in store.stats().values()) == completed + waiting
    assert verify(tmp_path / "store").findings == []


def named():
    """Return the ids of the golden jobs that have a name, by it."""
    jobs = expected(2)["jobs"].values()
    names = {job["record"]["name"]: base64.b64decode(job["record"]["id"]) for job in jobs}
    return {name: job for name, job in names.items() if name}


def test_the_newest_golden_store_has_rows_in_every_database(place):
    with contextlib.closing(open_store(place)) as store, store._env.begin() as txn:
        rows = {name: txn.stat(getattr(store._dbs, name))["entries"] for name in Databases.__slots__}
    assert [name for name, count in rows.items() if not count] == []


def test_a_golden_job_has_the_attempts_that_it_had(tmp_path):
    with contextlib.closing(open_store(unpack(2, tmp_path / "store"))) as store:
        attempts = store.get(named()["has attempts"]).attempts
    assert [attempt.state for attempt in attempts] == [State.PENDING, State.PENDING, State.SCHEDULED]
    assert [attempt.error.cause for attempt in attempts] == [
        "SIGSEGV, number 0",
        "SIGSEGV, number 1",
        "OSError: ¡later!",
    ]
    assert attempts[-1].error.traceback == TRACEBACK
    assert attempts[-1].log == "said — grüße\n" * 400


def test_golden_unique_keys_are_held_by_those_who_held_them(tmp_path, new_job):
    with contextlib.closing(open_store(unpack(2, tmp_path / "store"))) as store:
        kept = {}
        for name, terms in UNIQUE.items():
            [reply] = store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job(terms=terms)])])).replies
            kept[name] = reply.kept.get(0)
    holders = named()
    assert kept == {
        "runs with its key": holders["runs with its key"],
        "runs without its key": None,
        "waits with its key": holders["waits with its key"],
    }


def test_a_golden_limit_lets_the_next_one_run_when_the_first_ends(tmp_path):
    jobs = named()
    slots = [Slot("limited", 9, 1)]
    with contextlib.closing(open_store(unpack(2, tmp_path / "store"))) as store:
        assert store.stats()["limited"].limited == 1
        assert store.apply(Turn(now=NOW, slots=slots)).claims == []
        running = store.get(jobs["runs under limits"])
        done = Outcome(running.id, running.status.claim, State.COMPLETED, NOW, NOW)
        [claim] = store.apply(Turn(now=NOW, outcomes=[done], slots=slots)).claims
        assert claim.job == jobs["waits at a limit"]
        assert store.stats()["limited"].limited == 0
    assert verify(tmp_path / "store").findings == []


def test_the_script_that_makes_them_writes_the_same_again(tmp_path):
    packed = make(tmp_path)
    found = json.loads(packed.with_suffix(".json").read_text())
    assert found == expected(layout.FORMAT)


@pytest.fixture
def place(tmp_path):
    return unpack(layout.FORMAT, tmp_path / "store")


@pytest.fixture
def upgraded(monkeypatch):
    """A jobsched whose format is one higher; the step to it renames nothing but a category's row."""
    taken = []

    def step(txn, dbs):
        taken.append(txn.get(b"format", db=dbs.meta))
        txn.put(b"migrated", b"yes", db=dbs.meta)

    monkeypatch.setattr(layout, "FORMAT", NEXT)
    monkeypatch.setattr(module, "STEPS", {layout.FORMAT - 1: step})
    return taken


def test_an_older_store_is_migrated_once_after_a_backup(place, upgraded):
    for _ in range(2):
        with contextlib.closing(open_store(place)) as store:
            assert holds(content(store)["jobs"], expected(NEXT - 1)["jobs"])
    assert upgraded == [str(NEXT - 1).encode()]
    assert verify(place).format == NEXT
    backup = place / f"before-format-{NEXT}"
    assert verify(backup).format == NEXT - 1
    assert verify(backup).is_sound
    assert not list(place.glob(f"before-format-{NEXT}-*"))


def test_several_steps_are_taken_in_their_order(place, upgraded, monkeypatch):
    taken = []
    steps = {number: lambda _txn, _dbs, number=number: taken.append(number) for number in range(1, NEXT + 1)}
    monkeypatch.setattr(layout, "FORMAT", NEXT + 1)
    monkeypatch.setattr(module, "STEPS", steps)
    open_store(place).close()
    assert taken == [NEXT - 1, NEXT]
    assert verify(place).format == NEXT + 1


def test_a_backup_of_an_earlier_migration_is_kept(place, upgraded):
    (place / f"before-format-{NEXT}").mkdir()
    open_store(place).close()
    assert verify(place / f"before-format-{NEXT}-2").format == NEXT - 1


def test_a_step_that_fails_leaves_the_store_as_it_was(place, upgraded, monkeypatch):
    def fail(txn, dbs):
        txn.drop(dbs.statuses, delete=False)
        raise RuntimeError("bug in a step")

    monkeypatch.setattr(module, "STEPS", {NEXT - 1: fail})
    for _ in range(2):
        with pytest.raises(RuntimeError):
            open_store(place)
    assert (verify(place).format, verify(place).findings) == (NEXT - 1, [])
    assert not list(place.glob("before-format-*"))


def test_a_format_without_a_step_is_refused(place, upgraded, monkeypatch):
    monkeypatch.setattr(module, "STEPS", {})
    with pytest.raises(StoreFormatError, match=f"no step leads from format {NEXT - 1} on"):
        open_store(place)


HOLDS = """
import fcntl, sys
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(lock):
    """Have another process hold a lock file."""
    command = [sys.executable, "-c", HOLDS, lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        yield
        other.stdin.close()


def test_the_node_itself_migrates_its_store(place, upgraded):
    with (place / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_store(place).close()
    assert verify(place).format == NEXT


def test_a_store_is_not_migrated_under_a_node_of_an_earlier_release(place, upgraded):
    lock = place / "node.lock"
    pid = os.getpid()  # in another container it may have the same
    lock.write_text(json.dumps({"pid": pid, "started": "2026-09-21T14:00:00+0000"}))
    wanted = rf"a node of an earlier jobsched runs on .*pid {pid}"
    with held_by_another(lock), pytest.raises(StoreError, match=wanted):
        open_store(place)
    assert verify(place).format == NEXT - 1


def test_the_release_that_wrote_a_store_lists_its_jobs_in_order(place):
    with contextlib.closing(open_store(place)) as store:
        first = store.find(Query(state=State.PENDING, category="reports")).jobs[0]
        assert first.id.hex() in expected(layout.FORMAT)["order"]["pending"]
        assert first.status.priority == 30_000

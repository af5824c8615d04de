"""What `verify` finds in damaged stores, and that it finds nothing in whole ones."""

import random
import subprocess
import sys

import churn
import pytest
from damage import changing, encoded, only_row
from golden.golden_stores import FORMATS, unpack

from jobsched.codec import seal
from jobsched.errors import InvalidOption, StoreFormatError
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store import lmdb_layout as layout
from jobsched.store import verify as module
from jobsched.store.base import Request, Slot, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.lmdb_layout import CategoryRow, Counters
from jobsched.store.verify import KEPT_FINDINGS, verify

NOW = 1_000_000
PENDING, SCHEDULED, RUNNING = State.PENDING, State.SCHEDULED, State.IN_PROGRESS


@pytest.fixture
def place(tmp_path, new_job):
    """A store with a job that runs, one that waits, with a long payload, and one that is not due."""
    store = open_store(tmp_path / "store")
    store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job("reports")])], slots=[Slot("reports", 7, 1)]))
    waiting = [new_job(argument="long " * 900), new_job(due_at=NOW + 9)]
    store.apply(Turn(now=NOW, requests=[Request(jobs=waiting)]))
    store.close()
    return tmp_path / "store"


def damaged_status(txn, dbs, jobs):
    txn.put(jobs[PENDING], b"\x01damaged", db=dbs.statuses)


def status_of_another_shape(txn, dbs, jobs):
    txn.put(jobs[PENDING], seal(b"\xc0"), db=dbs.statuses)


def damaged_record(txn, dbs, jobs):
    record = bytearray(txn.get(jobs[RUNNING], db=dbs.jobs))
    record[-1] ^= 1
    txn.put(jobs[RUNNING], bytes(record), db=dbs.jobs)


def missing_record(txn, dbs, jobs):
    txn.delete(jobs[SCHEDULED], db=dbs.jobs)


def missing_chunk(txn, dbs, jobs):
    txn.delete(jobs[PENDING] + b"\0\1", db=dbs.jobs)


def record_of_another_job(txn, dbs, jobs):
    txn.put(jobs[SCHEDULED], txn.get(jobs[RUNNING], db=dbs.jobs), db=dbs.jobs)


def damaged_result(txn, dbs, jobs):
    txn.put(jobs[SCHEDULED], b"\x01no result", db=dbs.results)


def result_of_no_job(txn, dbs, jobs):
    txn.put(bytes(16), encoded(layout.ResultRow(b"\xc0")), db=dbs.results)


def orphaned_chunk(txn, dbs, jobs):
    txn.put(jobs[RUNNING] + b"\0\7", b"left over", db=dbs.jobs)


def missing_row(txn, dbs, jobs):
    txn.delete(only_row(txn, dbs.scheduled)[0], db=dbs.scheduled)


def row_of_no_job(txn, dbs, jobs):
    txn.put(layout.ended_key(State.FAILED, NOW, bytes(16)), layout.pending_prefix(1), db=dbs.ended)


def second_row(txn, dbs, jobs):
    txn.put(layout.ended_key(State.FAILED, NOW, jobs[PENDING]), layout.pending_prefix(1), db=dbs.ended)


def row_at_another_place(txn, dbs, jobs):
    key, job_id = only_row(txn, dbs.pending)
    txn.delete(key, db=dbs.pending)
    txn.put(key[:-1] + b"\x63", job_id, db=dbs.pending)


def row_of_another_worker(txn, dbs, jobs):
    key, value = only_row(txn, dbs.running)
    job_id, worker, category = layout.split_running(value)
    txn.put(key, layout.running_value(job_id, worker + 1, category), db=dbs.running)


def malformed_row(txn, dbs, jobs):
    txn.put(b"not a key", b"", db=dbs.scheduled)


def wrong_count(txn, dbs, jobs):
    row = layout.read_categories(txn, dbs)["mail"]
    row.counts[PENDING] += 1
    layout.write_category(txn, dbs, "mail", row)


def missing_category(txn, dbs, jobs):
    txn.delete(b"reports", db=dbs.categories)


def damaged_category(txn, dbs, jobs):
    txn.put(b"reports", b"\x01?", db=dbs.categories)


def shared_number(txn, dbs, jobs):
    layout.write_category(txn, dbs, "copy", CategoryRow.new(1))


def low_claim(txn, dbs, jobs):
    counters = layout.read_counters(txn, dbs)
    layout.write_counters(txn, dbs, Counters(counters.sequence, 0, counters.epoch))


def missing_counters(txn, dbs, jobs):
    txn.delete(b"counters", db=dbs.meta)


def damaged_decision(txn, dbs, jobs):
    txn.put((1).to_bytes(8, "big"), b"\x01?", db=dbs.decisions)


def missing_format(txn, dbs, jobs):
    txn.delete(b"format", db=dbs.meta)


def foreign_status_key(txn, dbs, jobs):
    txn.put(b"short", b"", db=dbs.statuses)


FAULTS = [
    (damaged_status, "damaged", PENDING, "its status is unreadable: record fails its CRC-32 check"),
    (status_of_another_shape, "damaged", PENDING, "its status is unreadable"),
    (damaged_record, "damaged", RUNNING, "its record is unreadable: record fails its CRC-32 check"),
    (missing_record, "damaged", SCHEDULED, "its record is missing"),
    (missing_chunk, "damaged", PENDING, "its record is unreadable"),
    (record_of_another_job, "damaged", SCHEDULED, "its record is that of job"),
    (damaged_result, "damaged", SCHEDULED, "its result is unreadable"),
    (result_of_no_job, "orphan", None, "a row in 'results' is of a job that is not in the store"),
    (orphaned_chunk, "orphan", RUNNING, "a chunk of 9 bytes in 'jobs' belongs to nothing"),
    (missing_row, "misplaced", SCHEDULED, "it is scheduled, and has no row in 'scheduled'"),
    (missing_row, "count", None, "category 'mail' counts 1 scheduled jobs, its rows are 0"),
    (row_of_no_job, "orphan", None, "a row in 'ended' is of a job that is not in the store"),
    (second_row, "misplaced", PENDING, "it is pending, and has a row in 'ended' that is not its own"),
    (second_row, "count", None, "counts 0 failed jobs, its rows are 1"),
    (row_at_another_place, "misplaced", PENDING, "it is pending, and has no row in 'pending'"),
    (row_of_another_worker, "misplaced", RUNNING, "its row in 'running' does not say what its status says"),
    (malformed_row, "damaged", None, "a row in 'scheduled' has no key or value of ours"),
    (wrong_count, "count", None, "category 'mail' counts 2 pending jobs, its rows are 1"),
    (missing_category, "misplaced", RUNNING, "its category 'reports' is not in the store"),
    (missing_category, "misplaced", None, "rows of category number 1, which no category has"),
    (damaged_category, "damaged", None, "the row of category 'reports' is unreadable"),
    (shared_number, "misplaced", None, "category 'copy' shares its number 1 with another"),
    (low_claim, "counter", None, "the counter 'claim' is 0, and 1 is in use"),
    (missing_counters, "counter", None, "the counter 'sequence' is 0"),
    (damaged_decision, "damaged", None, "the balancer's decision 1 is unreadable"),
    (missing_format, "damaged", None, "it says no format"),
    (foreign_status_key, "damaged", None, "a row in 'statuses' has no key or value of ours"),
]


@pytest.mark.parametrize(("fault", "kind", "state", "text"), FAULTS)
def test_a_fault_is_found_and_named(place, fault, kind, state, text):
    assert verify(place).is_sound
    with changing(place) as (txn, dbs):
        jobs = {layout.decode_status(data).state: bytes(key) for key, data in txn.cursor(db=dbs.statuses)}
        fault(txn, dbs, jobs)
    found = verify(place)
    fitting = [finding for finding in found.findings if finding.kind == kind and text in finding.text]
    assert fitting, found.findings
    assert all(finding.mend.startswith("jobsched ") for finding in found.findings)
    if state is not None:
        assert [finding.job for finding in fitting] == [format_id(jobs[state])]


@pytest.mark.parametrize("number", FORMATS)
def test_a_golden_store_is_whole_and_left_as_it_is(tmp_path, number):
    place = unpack(number, tmp_path / "store")
    before = (place / "data.mdb").read_bytes()
    found = verify(place)
    assert found.findings == []
    assert (found.format, found.jobs["completed"]) == (number, 5)
    assert (place / "data.mdb").read_bytes() == before


def test_a_single_file_is_read_without_a_lock_file_beside_it(tmp_path, place):
    copy = tmp_path / "copy.mdb"
    copy.write_bytes((place / "data.mdb").read_bytes())
    copy.chmod(0o400)
    assert verify(copy).jobs["in_progress"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mdb", "store"]


def test_broken_pages_are_found_before_lmdb_sees_them(place, monkeypatch):
    data = place / "data.mdb"
    pages = bytearray(data.read_bytes())
    pages[2 * 4096 :] = random.Random(1).randbytes(len(pages) - 2 * 4096)
    data.write_bytes(pages)
    monkeypatch.setattr(module.lmdb, "open", lambda *_args, **_options: pytest.fail("LMDB saw it"))
    found = verify(place)
    assert {finding.kind for finding in found.findings} == {"structure"}
    assert (found.format, found.rows) == (None, 0)


@pytest.mark.parametrize("length", [0, 100, 4096, 5 * 4096])
def test_a_file_cut_short_is_found(place, length):
    data = place / "data.mdb"
    data.write_bytes(data.read_bytes()[:length])
    assert {finding.kind for finding in verify(place).findings} == {"structure"}


def test_a_flipped_bit_never_ends_it_and_is_found_in_every_record(place):
    data = place / "data.mdb"
    whole = data.read_bytes()
    with changing(place) as (txn, dbs):
        records = [bytes(value) for db in (dbs.statuses, dbs.jobs) for _, value in txn.cursor(db=db)]
    dice = random.Random(5)
    for record in records:
        start = whole.find(record)
        while start >= 0:  # a page of an earlier commit may have it too
            pages = bytearray(whole)
            pages[start + dice.randrange(len(record))] ^= 1 << dice.randrange(8)
            data.write_bytes(pages)
            found = verify(place)
            if not found.is_sound:
                break
            start = whole.find(record, start + 1)
        assert not found.is_sound


def test_all_findings_are_counted_and_some_kept(place):
    with changing(place) as (txn, dbs):
        for number in range(KEPT_FINDINGS + 5):
            txn.put(number.to_bytes(16, "big"), b"", db=dbs.results)
    found = verify(place)
    assert len(found.findings) == KEPT_FINDINGS
    assert found.total > KEPT_FINDINGS + 5


def test_progress_is_told(place):
    told = []
    verify(place, lambda *step: told.append(step))
    assert ("statuses", 3, 3) in told


def test_what_is_no_store_is_refused(tmp_path, place):
    with pytest.raises(InvalidOption, match="no store at"):
        verify(tmp_path / "nowhere")
    with changing(place) as (txn, dbs):
        txn.put(b"format", str(layout.FORMAT + 1).encode(), db=dbs.meta)
    with pytest.raises(StoreFormatError, match="upgrade jobsched"):
        verify(place)


def test_a_store_that_is_written_to_meanwhile_is_whole(tmp_path):
    place = tmp_path / "store"
    writer = subprocess.Popen(
        [sys.executable, churn.__file__, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout.readline() == b"ready\n"
        jobs = []
        for _ in range(8):
            found = verify(place)
            assert found.findings == []
            jobs.append(sum(found.jobs.values()))
        assert jobs == sorted(jobs)
        assert jobs[0] < jobs[-1]
    assert writer.returncode == 0
    assert verify(place).is_sound

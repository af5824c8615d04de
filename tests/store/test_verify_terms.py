"""What `verify` finds in damaged rows of attempts, unique keys and limits."""

import pytest
from damage import changing, encoded, only_row
from turns import NOW, add, claim, finish

from jobsched.codec import unseal
from jobsched.job import JobError, Limit, State, Terms
from jobsched.job_id import format_id
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import Outcome
from jobsched.store.lmdb import open_store
from jobsched.store.verify import verify

TRIED, UNIQUE, RUNS, WAITS = (bytes([number]) * 16 for number in range(1, 5))
KEY, LIMIT, OTHER = b"u" * 16, b"l" * 16, b"o" * 16
NOBODY = bytes(16)
BROKEN = JobError("ValueError: no", "Traceback …\n" * 300)
LATER = NOW + 99


@pytest.fixture
def place(tmp_path, new_job):
    """A store with a job that was tried once, one that holds a unique key, one that runs under a
    limit, and one that waits at it. The record of the attempt is split.
    """
    limited = Terms(limits=(Limit(LIMIT, 1),))
    store = open_store(tmp_path / "store")
    add(store, new_job("tried", job_id=TRIED))
    [held] = claim(store, category="tried")
    finish(store, Outcome(TRIED, held.number, State.SCHEDULED, NOW, NOW, error=BROKEN, due_at=LATER))
    add(store, new_job("unique", job_id=UNIQUE, terms=Terms(unique=KEY)))
    add(store, *(new_job(job_id=job, terms=limited) for job in (RUNS, WAITS)))
    assert [found.job for found in claim(store)] == [RUNS]
    assert claim(store, worker=2) == []
    assert store.stats()["mail"].limited == 1
    store.close()
    return tmp_path / "store"


def attempt_key(txn, dbs):
    [key] = [key for key, _ in txn.cursor(db=dbs.attempts) if len(key) == 24]
    return key


def damaged_attempt(txn, dbs):
    key = attempt_key(txn, dbs) + b"\0\1"
    chunk = bytearray(txn.get(key, db=dbs.attempts))
    chunk[0] ^= 1
    txn.put(key, bytes(chunk), db=dbs.attempts)


def missing_chunk_of_an_attempt(txn, dbs):
    txn.delete(attempt_key(txn, dbs) + b"\0\1", db=dbs.attempts)


def missing_head_of_an_attempt(txn, dbs):
    txn.delete(attempt_key(txn, dbs), db=dbs.attempts)


def attempt_of_no_job(txn, dbs):
    [attempt] = layout.read_attempts(txn, dbs, TRIED)
    layout.append_attempt(txn, dbs, NOBODY, attempt)


def attempt_of_another_claim(txn, dbs):
    layout.put_blob(txn, dbs.attempts, TRIED + (2).to_bytes(8, "big"), split(txn, dbs))


def attempt_of_a_later_claim(txn, dbs):
    [attempt] = layout.read_attempts(txn, dbs, TRIED)
    layout.append_attempt(txn, dbs, TRIED, type(attempt)(attempt.attempt, 77, *after_claim(attempt)))


def malformed_attempt(txn, dbs):
    txn.put(TRIED + b"short", b"", db=dbs.attempts)


def split(txn, dbs):
    return layout.get_blob(txn, dbs.attempts, attempt_key(txn, dbs))


def after_claim(attempt):
    return attempt.worker, attempt.started_at, attempt.ended_at, attempt.state, attempt.error


def missing_unique(txn, dbs):
    txn.delete(KEY, db=dbs.unique)


def second_unique(txn, dbs):
    txn.put(OTHER, UNIQUE, db=dbs.unique)


def unique_of_no_job(txn, dbs):
    txn.put(OTHER, NOBODY, db=dbs.unique)


def unique_of_another_job(txn, dbs):
    txn.put(KEY, TRIED, db=dbs.unique)


def missing_limit(txn, dbs):
    txn.delete(LIMIT, db=dbs.limits)


def second_limit(txn, dbs):
    txn.put(OTHER, encoded((1, 1)), db=dbs.limits)


def damaged_limit(txn, dbs):
    row = bytearray(txn.get(LIMIT, db=dbs.limits))
    row[-1] ^= 1
    txn.put(LIMIT, bytes(row), db=dbs.limits)


def limit_of_another_shape(txn, dbs):
    txn.put(LIMIT, encoded([1]), db=dbs.limits)


def limit_that_lets_nobody_run(txn, dbs):
    txn.put(LIMIT, encoded((0, 1)), db=dbs.limits)


def limit_counted_too_high(txn, dbs):
    txn.put(LIMIT, encoded((1, 2)), db=dbs.limits)


def limit_counted_too_low(txn, dbs):
    txn.put(LIMIT, encoded((1, 0)), db=dbs.limits)


def malformed_limit(txn, dbs):
    txn.put(b"short", encoded((1, 1)), db=dbs.limits)


def missing_limited(txn, dbs):
    txn.delete(only_row(txn, dbs.limited)[0], db=dbs.limited)


def limited_and_in_its_queue(txn, dbs):
    key, job_id = only_row(txn, dbs.limited)
    txn.put(key[len(LIMIT) :], job_id, db=dbs.pending)


def limited_at_another_limit(txn, dbs):
    key, job_id = only_row(txn, dbs.limited)
    txn.delete(key, db=dbs.limited)
    txn.put(OTHER + key[len(LIMIT) :], job_id, db=dbs.limited)


def limited_at_another_place(txn, dbs):
    key, job_id = only_row(txn, dbs.limited)
    txn.delete(key, db=dbs.limited)
    txn.put(key[:-1] + b"\x63", job_id, db=dbs.limited)


def limited_of_no_job(txn, dbs):
    key, _ = only_row(txn, dbs.limited)
    txn.put(key[:-1] + b"\x63", NOBODY, db=dbs.limited)


def limited_of_another_job(txn, dbs):
    txn.put(only_row(txn, dbs.limited)[0], UNIQUE, db=dbs.limited)


def limited_while_it_runs(txn, dbs):
    key, _ = only_row(txn, dbs.limited)
    txn.put(key[:-1] + b"\x63", RUNS, db=dbs.limited)


def malformed_limited(txn, dbs):
    txn.put(LIMIT + b"short", WAITS, db=dbs.limited)


def waiting_counted(by):
    def waiting_miscounted(txn, dbs):
        row = layout.read_categories(txn, dbs)["mail"]
        row.limited += by
        layout.write_category(txn, dbs, "mail", row)

    return waiting_miscounted


waiting_counted_too_high, waiting_counted_too_low = waiting_counted(1), waiting_counted(-1)

FAULTS = {
    damaged_attempt: [("damaged", TRIED, "the record of an attempt is unreadable: record fails its CRC-32")],
    missing_chunk_of_an_attempt: [
        ("damaged", TRIED, "its record in 'attempts' is not as long as it says"),
        ("damaged", TRIED, "the record of an attempt is unreadable"),
    ],
    missing_head_of_an_attempt: [("orphan", TRIED, "in 'attempts' belongs to nothing")] * 3,
    attempt_of_no_job: [("orphan", NOBODY, "a row in 'attempts' is of a job that is not in the store")],
    attempt_of_another_claim: [
        ("misplaced", TRIED, "the record of an attempt under claim 2 is that of claim 1")
    ],
    attempt_of_a_later_claim: [("counter", None, "the counter 'claim' is 2, and 77 is in use")],
    malformed_attempt: [("damaged", None, "a row in 'attempts' has no key or value of ours")],
    missing_unique: [("misplaced", UNIQUE, "its unique key is held by no job")],
    second_unique: [("misplaced", UNIQUE, "it holds a unique key that it should not")],
    unique_of_no_job: [("orphan", NOBODY, "a unique key is held by a job that is not in the store")],
    unique_of_another_job: [
        ("misplaced", UNIQUE, f"its unique key is held by job {format_id(TRIED)}"),
        ("misplaced", TRIED, "it holds a unique key that it should not"),
    ],
    missing_limit: [("count", None, f"the limit {LIMIT.hex()} is missing, and has 1 running")],
    second_limit: [("count", None, f"the limit {OTHER.hex()} counts 1 running jobs, it has 0")],
    damaged_limit: [("damaged", None, f"the limit {LIMIT.hex()} is unreadable: record fails its CRC-32")],
    limit_of_another_shape: [("damaged", None, f"the limit {LIMIT.hex()} is unreadable")],
    limit_that_lets_nobody_run: [("damaged", None, f"the limit {LIMIT.hex()} lets 0 jobs run")],
    limit_counted_too_high: [("count", None, f"the limit {LIMIT.hex()} counts 2 running jobs, it has 1")],
    limit_counted_too_low: [("count", None, f"the limit {LIMIT.hex()} counts 0 running jobs, it has 1")],
    malformed_limit: [("damaged", None, "a row in 'limits' has no key or value of ours")],
    missing_limited: [
        ("misplaced", WAITS, "it is pending, and has no row in 'pending'"),
        ("count", None, "category 'mail' counts 1 pending jobs, its rows are 0"),
        ("count", None, "category 'mail' counts 1 jobs that wait at limits, its rows are 0"),
    ],
    limited_and_in_its_queue: [
        ("misplaced", WAITS, "it waits at a limit, and in its queue as well"),
        ("count", None, "category 'mail' counts 1 pending jobs, its rows are 2"),
    ],
    limited_at_another_limit: [
        ("misplaced", WAITS, "it is pending, and has no row in 'pending'"),
        ("misplaced", WAITS, "it waits at a limit that is not its own"),
    ],
    limited_at_another_place: [
        ("misplaced", WAITS, "it is pending, and has no row in 'pending'"),
        ("misplaced", WAITS, "it is pending, and has a row in 'limited' that is not its own"),
    ],
    limited_of_no_job: [
        ("orphan", NOBODY, "a row in 'limited' is of a job that is not in the store"),
        ("count", None, "category 'mail' counts 1 pending jobs, its rows are 2"),
        ("count", None, "category 'mail' counts 1 jobs that wait at limits, its rows are 2"),
    ],
    limited_of_another_job: [
        ("misplaced", WAITS, "its row in 'limited' does not say what its status says"),
        ("misplaced", UNIQUE, "it is pending, and has a row in 'limited' that is not its own"),
        ("misplaced", UNIQUE, "it waits at a limit that is not its own"),
    ],
    limited_while_it_runs: [
        ("misplaced", RUNS, "it is in_progress, and has a row in 'limited' that is not its own"),
        ("count", None, "category 'mail' counts 1 pending jobs, its rows are 2"),
        ("count", None, "category 'mail' counts 1 jobs that wait at limits, its rows are 2"),
    ],
    malformed_limited: [("damaged", None, "a row in 'limited' has no key or value of ours")],
    waiting_counted_too_high: [
        ("count", None, "category 'mail' counts 2 jobs that wait at limits, its rows are 1")
    ],
    waiting_counted_too_low: [
        ("count", None, "category 'mail' counts 0 jobs that wait at limits, its rows are 1")
    ],
}


def fits(finding, expected):
    kind, job, text = expected
    return (finding.kind, finding.job) == (kind, job and format_id(job)) and text in finding.text


@pytest.mark.parametrize(("fault", "expected"), FAULTS.items())
def test_a_fault_is_found_and_nothing_else_is(place, fault, expected):
    assert verify(place).is_sound
    with changing(place) as (txn, dbs):
        fault(txn, dbs)
    found = verify(place).findings
    assert len(found) == len(expected), found
    for one in expected:
        assert any(fits(finding, one) for finding in found), (one, found)


def test_a_damaged_status_is_not_said_again_of_its_other_rows(place):
    with changing(place) as (txn, dbs):
        for job in (TRIED, UNIQUE, WAITS):
            txn.put(job, b"\x01damaged", db=dbs.statuses)
    assert {(found.kind, found.text[:24]) for found in verify(place).findings} == {
        ("damaged", "its status is unreadable")
    }


def test_a_job_that_came_back_after_its_key_went_to_another_is_whole(tmp_path, new_job):
    terms = Terms(unique=KEY, frees_at_start=True)
    store = open_store(tmp_path / "store")
    add(store, new_job(job_id=TRIED, terms=terms))
    [held] = claim(store)
    add(store, new_job("other", job_id=UNIQUE, terms=terms))
    finish(store, Outcome(TRIED, held.number, State.SCHEDULED, NOW, NOW, error=BROKEN, due_at=LATER))
    assert verify_closed(store, tmp_path / "store") == []
    store = open_store(tmp_path / "store")
    [held] = claim(store, category="other")
    finish(store, Outcome(UNIQUE, held.number, State.COMPLETED, NOW, NOW))
    assert verify_closed(store, tmp_path / "store") == []


def verify_closed(store, path):
    store.close()
    return verify(path).findings


def test_an_attempt_is_checked_over_all_its_chunks(place):
    with changing(place) as (txn, dbs):
        assert unseal(split(txn, dbs))
        assert txn.stat(dbs.attempts)["entries"] > 2

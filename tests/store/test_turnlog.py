"""The log of turns: what is written comes back, and replays to the same store."""

import msgspec
import pytest

from jobsched.codec import BadRecord
from jobsched.job import JobError, State
from jobsched.store.alike import AlikeJobs
from jobsched.store.base import GiveBack, Outcome, Request, Slot, Turn
from jobsched.store.memory import MemoryStore
from jobsched.store.turnlog import Entry, RecordingStore, TurnLog, read_log, replay

ERROR = JobError("ValueError: no", "Traceback …")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "turns"


@pytest.fixture
def turns(new_job):
    """One turn of each kind, with lists for sequences as a log gives them back."""
    job = new_job()
    made = [
        Turn(now=1, requests=[Request(jobs=[job, new_job(due_at=9)], cancel=[job.id], pause={"a": 0})]),
        Turn(now=2, release=3, slots=[Slot("mail", 1, 2)]),
        Turn(now=3, outcomes=[Outcome(job.id, 1, State.FAILED, 2, 3, None, ERROR)]),
        Turn(now=4, give_back=[GiveBack(job.id, 1, interrupted=True)]),
    ]
    return msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=list[Turn])


def write(path, turns):
    with TurnLog(path) as log:
        for turn in turns:
            log.append(Entry(turn))


def test_entries_come_back_in_their_order(path, turns):
    with TurnLog(path) as log:
        log.append(Entry(turns[0]))
        log.append(Entry(None, 5, frozenset({1, 7})))
        log.append(Entry(turns[1]))
    assert list(read_log(path)) == [Entry(turns[0]), Entry(None, 5, frozenset({1, 7})), Entry(turns[1])]


def test_every_kind_of_turn_comes_back(path, turns):
    write(path, turns)
    assert [entry.turn for entry in read_log(path)] == turns


def test_a_reopened_log_is_appended_to(path, turns):
    write(path, turns[:1])
    write(path, turns[1:])
    assert [entry.turn for entry in read_log(path)] == turns


def test_a_log_cut_anywhere_gives_its_whole_entries(path, turns):
    write(path, turns[:2])
    both = path.read_bytes()
    write(path.with_name("first"), turns[:1])
    first = path.with_name("first").stat().st_size
    for length in range(first, len(both)):
        path.write_bytes(both[:length])
        assert [entry.turn for entry in read_log(path)] == turns[:1]


def test_a_half_written_entry_is_cut_off_before_the_next(path, turns):
    write(path, turns[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    write(path, turns[2:])
    assert [entry.turn for entry in read_log(path)] == [turns[0], *turns[2:]]


def test_a_damaged_last_entry_counts_as_half_written(path, turns):
    write(path, turns[:2])
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert [entry.turn for entry in read_log(path)] == turns[:1]


def test_damage_before_the_end_is_an_error_that_names_the_file(path, turns):
    write(path, turns)
    whole = bytearray(path.read_bytes())
    whole[12] ^= 1
    path.write_bytes(whole)
    with pytest.raises(BadRecord, match=r"turns is damaged before byte \d+"):
        list(read_log(path))
    with pytest.raises(BadRecord):
        TurnLog(path)
    assert path.read_bytes() == whole


def test_an_empty_log_has_no_entries(path):
    write(path, [])
    assert list(read_log(path)) == []
    assert replay(path, MemoryStore()) == 0


def test_what_a_recording_store_did_can_be_replayed(path, store, turns):
    recording = RecordingStore(store, TurnLog(path))
    for turn in turns:
        recording.apply(turn)
    [held] = recording.apply(Turn(now=9, release=9, slots=[Slot("mail", 3, 9)])).claims
    recording.recover(5, frozenset({3}))
    recording.log.close()
    again = MemoryStore()
    assert replay(path, again) == len(turns) + 1
    assert again.get(held.job).status.state is State.PARKED
    assert again.stats() == store.stats()
    for job in turns[0].requests[0].jobs:
        assert again.get(job.id) == store.get(job.id)
    assert again.recover(5) == store.recover(5)


def test_jobs_that_are_alike_come_back_one_by_one(path, new_job):
    jobs = [new_job() for _ in range(3)]
    alike = AlikeJobs(jobs[0], [job.id for job in jobs], [job.record for job in jobs])
    write(path, [Turn(now=1, requests=[Request(jobs=alike)])])
    (entry,) = read_log(path)
    assert entry.turn.requests[0].jobs == jobs


def test_a_turn_that_failed_is_not_logged(path):
    with TurnLog(path) as log:
        recording = RecordingStore(MemoryStore(), log)
        with pytest.raises(TypeError):
            recording.apply(Turn(now=1, requests=5))
        recording.apply(Turn(now=2))
    assert [entry.turn.now for entry in read_log(path)] == [2]

import msgspec
import pytest

from jobsched.job import Terms
from jobsched.store.alike import AlikeJobs, at_once, ids_of, joined, kinds, records_of, with_terms
from jobsched.store.base import NewJob

KINDS = [{}, {"due_at": 5}, {"terms": Terms(at_most_once=True)}, {"category": "reports", "priority": 2}]


def alike(first=0, count=5, **what) -> AlikeJobs:
    like = msgspec.structs.replace(NewJob(bytes(16), "m:send", "mail", 0, 0, b""), **what)
    numbers = range(first, first + count)
    return AlikeJobs(like, [n.to_bytes(16, "big") for n in numbers], [b"record %d" % n for n in numbers])


def kind(job: NewJob) -> NewJob:
    return msgspec.structs.replace(job, id=bytes(16), record=b"")


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_they_are_jobs_of_which_is_told_what_is_told_of_a_list(what, count):
    jobs = alike(count=count, **what)
    single = list(jobs)
    assert len(jobs) == len(single) == count
    assert [jobs[place] for place in range(count)] == single
    assert list(jobs[1:3]) == single[1:3]
    assert (ids_of(jobs), records_of(jobs)) == (ids_of(single), records_of(single))
    assert at_once(jobs) == at_once(single)
    assert list(with_terms(jobs)) == list(with_terms(single))
    assert {job.task for job in map(kind, kinds(jobs))} == {job.task for job in map(kind, single)}


@pytest.mark.parametrize("second", [{}, *KINDS])
def test_parts_are_joined_in_their_order_and_stay_alike_if_they_are(second):
    parts = [alike(0), alike(5, **second)]
    whole = joined(parts)
    assert list(whole) == [*parts[0], *parts[1]]
    assert isinstance(whole, AlikeJobs) == (not second)
    assert list(joined([*parts, list(alike(10))])) == [*parts[0], *parts[1], *alike(10)]
    assert list(joined([])) == []


def test_a_record_is_needed_for_each_id():
    with pytest.raises(ValueError, match="2 ids of jobs with 1 records"):
        AlikeJobs(alike().like, [bytes(16)] * 2, [b""])

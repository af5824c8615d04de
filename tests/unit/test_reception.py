import time

import msgspec
import pytest

from jobsched import wire
from jobsched.config import parse_config
from jobsched.errors import WireError
from jobsched.job import MAX_PAYLOAD, JobError, State
from jobsched.reception import Reception
from jobsched.store.base import Accepted, NewJob, Outcome, Refused, Request, Slot, Turn
from jobsched.store.memory import MemoryStore


class Asker:
    """Somebody who asks, and keeps the answers."""

    def __init__(self) -> None:
        self.told: list[msgspec.Struct] = []

    def send(self, message: msgspec.Struct) -> None:
        self.told.append(message)


@pytest.fixture
def reception(tmp_path):
    return Reception(parse_config("tasks = ['m']\n[categories.mail]\n[categories.reports]\n", tmp_path))


@pytest.fixture
def asker():
    return Asker()


@pytest.fixture
def store():
    """A store with one job that waits."""
    store = MemoryStore()
    store.apply(Turn(now=1, requests=[Request(jobs=[new_job(1)])]))
    return store


def new_job(number: int, category="mail", task="m:send", *, size=10, due_at=0) -> NewJob:
    return NewJob(job_id(number), task, category, 0, due_at, bytes(size))


def job_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def finish(store: MemoryStore, state: State, due_at: int = 0) -> None:
    """Run the job that waits."""
    (claim,) = store.apply(Turn(now=2, slots=[Slot("mail", 1, 1)])).claims
    error = None if state is State.COMPLETED else JobError("KeyError")
    outcome = Outcome(claim.job, claim.number, state, 2, 3, None, error, due_at)
    store.apply(Turn(now=3, outcomes=[outcome]))


# Requests.


def test_requests_are_handed_over_once_and_answered_in_order(reception):
    first, second = Asker(), Asker()
    requests = [Request(jobs=[new_job(n)]) for n in range(3)]
    reception.take(first, wire.Ask(5, requests[0]))
    reception.take(second, wire.Ask(5, requests[1]))
    reception.take(first, wire.Ask(6, requests[2]))
    assert reception.requests() == requests
    replies = [Accepted([State.CANCELLED]), Refused("StoreFull", "full"), Accepted()]
    reception.answer(replies)
    assert first.told == [wire.Answer(5, replies[0]), wire.Answer(6, replies[2])]
    assert second.told == [wire.Answer(5, replies[1])]
    assert reception.requests() == []


@pytest.mark.parametrize(
    ("request_", "kind", "reason"),
    [
        (
            Request(jobs=[new_job(1), new_job(2, "mial")]),
            "UnknownCategory",
            "unknown category 'mial', did you mean 'mail'?",
        ),
        (
            Request(jobs=[new_job(1, task="m:sned")]),
            "UnknownTask",
            "unknown task 'm:sned', did you mean 'm:send'?",
        ),
        (
            Request(jobs=[new_job(1, size=MAX_PAYLOAD + 4097)]),
            "PayloadTooLarge",
            "the arguments of task 'm:send' take 1,052,673 bytes, the limit is 1,048,576",
        ),
        (Request(pause=["mail", "report"]), "UnknownCategory", "did you mean 'reports'?"),
        (Request(resume=["x"]), "UnknownCategory", "unknown category 'x'; known: mail, reports"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_whole(reception, asker, request_, kind, reason):
    reception.tasks = {"m:send", "m:receive"}
    reception.take(asker, wire.Ask(3, request_))
    (answer,) = asker.told
    assert (answer.number, answer.reply.kind) == (3, kind)
    assert reason in answer.reply.reason
    assert reception.requests() == []


def test_a_refusal_touches_nobody_elses_request(reception, asker):
    other = Asker()
    reception.take(other, wire.Ask(1, Request(jobs=[new_job(1)])))
    reception.take(asker, wire.Ask(1, Request(jobs=[new_job(2, "nowhere")])))
    assert reception.requests() == [Request(jobs=[new_job(1)])]
    assert other.told == []


def test_no_task_is_unknown_while_the_tasks_are_being_loaded(reception, asker):
    request = Request(jobs=[new_job(1, task="m:any")])
    reception.take(asker, wire.Ask(1, request))
    assert (asker.told, reception.requests()) == ([], [request])


def test_arrivals_are_counted_by_category_without_those_that_are_not_due(reception, asker):
    jobs = [new_job(1), new_job(2), new_job(3, "reports"), new_job(4, due_at=9)]
    reception.take(asker, wire.Ask(1, Request(jobs=jobs)))
    assert reception.arriving() == {"mail": 2, "reports": 1}
    reception.requests()
    assert reception.arriving() == {}


def test_cancelled_jobs_are_those_of_the_turn(reception, asker):
    reception.take(asker, wire.Ask(1, Request(cancel=[job_id(1), job_id(2)])))
    reception.take(asker, wire.Ask(2, Request(cancel=[job_id(3)])))
    reception.requests()
    assert list(reception.cancelled()) == [job_id(1), job_id(2), job_id(3)]


# Parts.


def test_parts_are_joined_by_asker_and_number(reception):
    first, second = Asker(), Asker()
    for asker, number, job, more in [
        (first, 1, 10, True),
        (second, 1, 20, True),
        (first, 2, 30, True),
        (first, 1, 11, False),
        (second, 1, 21, False),
        (first, 2, 31, False),
    ]:
        reception.take(asker, wire.Ask(number, Request(jobs=[new_job(job)]), more))
    joined = reception.requests()
    assert [[job.id for job in request.jobs] for request in joined] == [
        [job_id(10), job_id(11)],
        [job_id(20), job_id(21)],
        [job_id(30), job_id(31)],
    ]


def test_a_bad_job_in_any_part_refuses_the_whole(reception, asker):
    reception.take(asker, wire.Ask(1, Request(jobs=[new_job(1, "nowhere")]), more=True))
    assert asker.told == []
    reception.take(asker, wire.Ask(1, Request(jobs=[new_job(2)])))
    assert asker.told[0].reply.kind == "UnknownCategory"
    assert reception.requests() == []


@pytest.mark.parametrize(("count", "size"), [(50_001, 1), (33, 1 << 20)])
def test_parts_that_grow_over_the_limits_are_no_protocol_of_ours(reception, asker, count, size):
    part = Request(jobs=[new_job(1, size=size)] * count)
    reception.take(asker, wire.Ask(1, part, more=True))
    with pytest.raises(WireError, match="a request over 100,000 jobs or 64 MiB"):
        reception.take(asker, wire.Ask(1, part))


# Looks.


def test_a_look_is_answered_at_once_with_the_job_as_it_is(reception, asker, store):
    reception.take(asker, wire.Look(1, job_id(1)))
    reception.take(asker, wire.Look(2, job_id(9)))
    assert reception.has_looks
    reception.settle(store, [])
    assert asker.told == [wire.Seen(1, store.get(job_id(1))), wire.Seen(2, None)]
    assert not reception.has_looks


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.PARKED])
def test_who_waits_for_a_job_is_told_when_it_has_ended(reception, asker, store, state):
    other = Asker()
    reception.take(asker, wire.Look(1, job_id(1), ended=True))
    reception.take(other, wire.Look(4, job_id(1), ended=True))
    reception.settle(store, [])
    assert asker.told == other.told == []
    finish(store, state)
    reception.settle(store, [job_id(7), job_id(1)])
    ended = store.get(job_id(1))
    assert ended.status.state is state
    assert (asker.told, other.told) == ([wire.Seen(1, ended)], [wire.Seen(4, ended)])
    reception.settle(store, [job_id(1)])
    assert len(asker.told) == 1


def test_who_waits_for_a_job_that_has_ended_is_told_at_once(reception, asker, store):
    finish(store, State.COMPLETED)
    reception.take(asker, wire.Look(1, job_id(1), ended=True))
    reception.take(asker, wire.Look(2, job_id(9), ended=True))
    reception.settle(store, [])
    assert asker.told == [wire.Seen(1, store.get(job_id(1))), wire.Seen(2, None)]


def test_who_asks_for_a_job_that_is_not_there_is_answered_when_the_store_works(reception, asker, store):
    reception.take(asker, wire.Look(1, job_id(2), ended=False))
    reception.take(asker, wire.Look(2, job_id(1), ended=False))
    reception.settle(store, [], is_behind=True)
    assert [seen.number for seen in asker.told] == [2]
    assert reception.has_looks
    store.apply(Turn(now=1, requests=[Request(jobs=[new_job(2)])]))
    reception.settle(store, [])
    assert asker.told[-1].job.id == job_id(2)
    assert not reception.has_looks


def test_who_waits_for_a_job_that_is_tried_again_goes_on_waiting(reception, asker, store):
    reception.take(asker, wire.Look(1, job_id(1), ended=True))
    reception.settle(store, [])
    finish(store, State.SCHEDULED, due_at=5)
    reception.settle(store, [job_id(1)])
    assert asker.told == []


def test_a_cancellation_wakes_who_waits(reception, asker, store):
    reception.take(asker, wire.Look(1, job_id(1), ended=True))
    reception.settle(store, [])
    reception.take(Asker(), wire.Ask(1, Request(cancel=[job_id(1)])))
    store.apply(Turn(now=2, requests=reception.requests()))
    reception.settle(store, reception.cancelled())
    assert [message.job.status.state for message in asker.told] == [State.CANCELLED]


def test_looks_that_are_too_much_for_one_turn_are_answered_in_the_next(reception, asker, store):
    store.apply(Turn(now=1, requests=[Request(jobs=[new_job(5, size=1 << 20)])]))
    for number in range(40):
        reception.take(asker, wire.Look(number, job_id(5)))
    counts = []
    while reception.has_looks:
        reception.settle(store, [])
        counts.append(len(asker.told))
    assert counts == [16, 32, 40]
    assert [message.number for message in asker.told] == list(range(40))


def test_a_request_in_one_frame_is_bounded_too(reception, asker):
    with pytest.raises(WireError, match="a request over 100,000 jobs"):
        reception.take(asker, wire.Ask(1, Request(cancel=[job_id(1)] * 100_001)))


def test_eight_times_as_many_small_parts_cost_about_eight_times_as_much(reception):
    part = wire.Ask(1, Request(jobs=[new_job(1)]), more=True)

    def cpu_s(parts: int) -> float:
        asker = Asker()
        began = time.process_time()
        for _ in range(parts):
            reception.take(asker, part)
        return time.process_time() - began

    # The least of several runs: others on the machine slow some down.
    limit = 24 * min(cpu_s(2500) for _ in range(9))  # linear time gives 8, quadratic 64
    assert any(cpu_s(20_000) < limit for _ in range(3))


# Those who are gone.


def test_who_is_gone_is_told_nothing_more_of_what_it_looked_for(reception, asker, store):
    other = Asker()
    for who in (asker, other):
        reception.take(who, wire.Look(1, job_id(1), ended=True))
    reception.settle(store, [])
    reception.take(asker, wire.Look(2, job_id(1)))
    reception.forget(asker)
    assert not reception.has_looks
    finish(store, State.COMPLETED)
    reception.settle(store, [job_id(1)])
    assert (asker.told, len(other.told)) == ([], 1)


def test_half_a_request_of_who_is_gone_is_dropped(reception, asker):
    reception.take(asker, wire.Ask(1, Request(jobs=[new_job(1)]), more=True))
    reception.forget(asker)
    reception.take(asker, wire.Ask(1, Request(jobs=[new_job(2)])))
    assert [[job.id for job in request.jobs] for request in reception.requests()] == [[job_id(2)]]


def test_a_whole_request_of_who_is_gone_is_still_applied(reception, asker):
    request = Request(jobs=[new_job(1)])
    reception.take(asker, wire.Ask(1, request))
    reception.forget(asker)
    assert reception.requests() == [request]
    reception.answer([Accepted()])

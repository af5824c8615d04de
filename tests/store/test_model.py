"""Every durable store does what the memory store does: random turns, crashes among them."""

import shutil
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobsched import transitions as rules
from jobsched.codec import unseal
from jobsched.job import JobError, Limit, ParkedFor, State, Terms
from jobsched.report import Decision
from jobsched.store import lmdb_layout as layout
from jobsched.store import lmdb_requests, memory
from jobsched.store.base import Claim, GiveBack, Outcome, Query, Request, Slot, Turn
from jobsched.store.journal_marks import Span
from jobsched.store.memory import MemoryStore
from jobsched.store.moves import Watch
from jobsched.store.retention import Prune
from jobsched.store.turnlog import RecordingStore, TurnLog, replay

# Few ids, so that they meet again; out of order, and alike at both ends.
IDS = [bytes.fromhex(f"{n % 5:06x}{n * 7919 % 10007:020x}{n % 3:06x}") for n in range(40)]
# Whole turns are under test here, not what a flush costs.
MEMORY = Path("/dev/shm")
CATEGORIES = ["mail", "reports", "ünï"]
JOURNALS = ["1a" * 16, "2b" * 16]

categories = st.sampled_from(CATEGORIES)
ids = st.integers(0, len(IDS) - 1).map(IDS.__getitem__)
workers = st.integers(1, 4)
steps = st.integers(-5, 12)
times = st.just(0) | st.integers(1000, 1060)
limits = st.lists(
    st.builds(Limit, st.sampled_from([b"k" * 16, b"l" * 16]), st.integers(1, 2)),
    max_size=2,
    unique_by=lambda limit: limit.key,
).map(tuple)
terms = st.none() | st.builds(
    Terms,
    at_most_once=st.booleans(),
    expires_at=times,
    unique=st.sampled_from([b"", b"u" * 16, b"v" * 16]),
    frees_at_start=st.booleans(),
    limits=limits,
)
# What a worker tells of a task whose dispatcher did not know it: nothing that depends on a dispatch.
task_terms = st.builds(Terms, at_most_once=st.booleans(), limits=limits)
prunes = st.builds(
    Prune,
    state=st.sampled_from([State.COMPLETED, State.FAILED, State.CANCELLED]),
    before=times,
    keep=st.none() | st.integers(0, 3),
    settled=times,
    limit=st.integers(0, 3),
)
new_jobs = st.fixed_dictionaries(
    {
        "job_id": ids,
        "category": categories,
        "priority": st.sampled_from([0, 0, 3, -2]),
        "due_at": times,
        "terms": terms,
        "on_conflict": st.sampled_from(["keep", "refuse", "replace"]),
    }
)
requests = st.fixed_dictionaries(
    {
        "jobs": st.lists(new_jobs, max_size=4),
        "cancel": st.lists(ids, max_size=2),
        "pause": st.just({}) | st.just({}) | st.just({}) | st.dictionaries(categories, times, max_size=1),
        "resume": st.lists(categories, max_size=2),
        "retry": st.lists(ids, max_size=2),
        "delete": st.just([]) | st.just([]) | st.lists(ids, max_size=1),
        "max_pending": st.just({}) | st.dictionaries(categories, st.integers(0, 9), max_size=1),
    }
)
held_or_not = st.tuples(st.integers(0, 9), st.sampled_from([True, True, True, False]), ids)
outcomes = st.fixed_dictionaries(
    {
        "which": held_or_not,
        "state": st.sampled_from(
            [State.COMPLETED, State.FAILED, State.CANCELLED, State.PARKED, State.SCHEDULED, State.PENDING]
        ),
        "took": st.integers(0, 3),
        "wait": steps,
        "log": st.sampled_from(["", "", "a line\n", "ü" * 9000]),
        "unspent": st.booleans(),
        "parked_for": st.sampled_from(ParkedFor),
        "terms": st.none() | task_terms,
    }
)
give_backs = st.tuples(held_or_not, st.booleans())
slots = st.builds(Slot, categories, workers, st.integers(0, 3), st.booleans())
shares = st.dictionaries(categories, st.integers(0, 9), max_size=1)
decisions = st.builds(
    Decision,
    at=st.integers(1000, 1060),
    budget=st.just(8),
    backlog=shares,
    before=shares,
    after=shares,
    ideal=st.just({"mail": 0.5}),
    reasons=st.just({"mail": "weight 1 of 2"}),
)
queries = st.builds(
    Query, state=st.none() | st.sampled_from(State), category=st.none(), limit=st.integers(1, 5)
)


class StoresAgree(RuleBasedStateMachine):
    """The same turns go to the model and to a durable store; whatever can be seen is the same."""

    def __init__(self, open_durable, new_job) -> None:
        super().__init__()
        self.open_durable = open_durable
        self.new_job = new_job
        self.folder = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.places = (Path(self.folder.name, f"store-{n}") for n in count())
        self.place = next(self.places)
        self.log = Path(self.folder.name, "turns")
        self.model = RecordingStore(MemoryStore(), TurnLog(self.log))
        self.durable = open_durable(self.place)
        self.now = 1000
        self.last_claim = 0
        self.turns = 0
        self.known: set[bytes] = set()
        self.listing = (Query(), b"", b"")
        self.watch = Watch.ALL

    @rule(step=steps, asked=st.lists(requests, min_size=1, max_size=3))
    def dispatch(self, step, asked):
        self.turn(step, asked=asked)

    @rule(step=steps, room=st.lists(slots, min_size=2, max_size=5))
    def work(self, step, room):
        self.turn(step, release=9, room=room)

    @rule(
        step=steps,
        journal=st.sampled_from(JOURNALS),
        first=st.sampled_from([1, 1, 1, 0, 2]),
        length=st.integers(0, 2),
        jobs=st.lists(new_jobs, max_size=3),
        forgotten=st.just([]) | st.just([]) | st.lists(st.sampled_from(JOURNALS), max_size=1),
        begun=st.lists(st.tuples(st.integers(-1, 3), workers, ids), max_size=3),
    )
    def take_in(self, *, step, journal, first, length, jobs, forgotten, begun):
        """Take in entries of a journal: mostly those that come next, and some of the jobs run already."""
        first += self.model.journals().get(journal, 0)
        span = Span(journal, first, first + length)
        come = [job["job_id"] for job in jobs]
        claims = [
            Claim(self.last_claim + ahead, worker, 1, come[place] if place < len(come) else job_id, b"")
            for place, (ahead, worker, job_id) in enumerate(begun)
        ]
        self.turn(step, asked=[{"jobs": jobs, "taken": [span]}], forgotten=forgotten, begun=claims)

    @precondition(lambda self: self.model.in_progress())
    @rule(step=steps, ended=st.lists(outcomes, min_size=1, max_size=4))
    def finish(self, step, ended):
        self.turn(step, ended=ended)

    @precondition(lambda self: self.model.in_progress())
    @rule(step=steps, places=st.lists(st.integers(0, 9), min_size=1, max_size=3))
    def cancel_running(self, step, places):
        running = self.running()
        self.turn(step, cancel=[running[place % len(running)] for place in places])

    @precondition(lambda self: self.model.in_progress())
    @rule(step=steps, back=st.lists(give_backs, min_size=1, max_size=3))
    def give_back(self, step, back):
        self.turn(step, back=back)

    @rule(
        step=steps,
        asked=st.lists(requests, max_size=2),
        ended=st.lists(outcomes, max_size=2),
        back=st.lists(give_backs, max_size=1),
        release=st.integers(0, 3),
        room=st.lists(slots, max_size=3),
        decided=st.lists(decisions, max_size=1),
        prune=st.lists(prunes, max_size=2),
    )
    def do_all(self, *, step, **parts):
        self.turn(step, **parts)

    def turn(
        self,
        step,
        *,
        asked=(),
        cancel=(),
        ended=(),
        back=(),
        release=0,
        room=(),
        decided=(),
        prune=(),
        forgotten=(),
        begun=(),
    ):
        """Apply one turn to both stores."""
        self.now += step
        turn = Turn(
            now=self.now,
            requests=[*(self.request(**one) for one in asked), Request(cancel=cancel)],
            outcomes=[self.outcome(**one) for one in ended],
            give_back=[GiveBack(*self.held(*which), interrupted) for which, interrupted in back],
            decisions=decided,
            release=release,
            slots=room,
            prune=prune,
            forget_journals=forgotten,
            begun=begun,
            watch=self.watch,
        )
        expected = self.model.apply(turn)
        found = self.durable.apply(turn)
        assert without_limited(found) == without_limited(expected)
        self.turns += 1
        self.check(turn, expected)

    def check(self, turn, result):
        """Check what must be true of any result, that of the model too."""
        asked = {job.id for request in turn.requests for job in request.jobs}
        self.known = {job_id for job_id in self.known | asked if self.model.get(job_id)}
        assert sum(sum(found.counts) for found in result.stats.values()) == len(self.known)
        numbers = [claim.number for claim in result.claims]
        made = [claim for claim in result.claims if claim not in turn.begun]
        assert [self.last_claim, *numbers] == sorted({self.last_claim, *numbers})
        assert result.last_claim == max([self.last_claim, *numbers])
        self.last_claim = result.last_claim
        assert len({claim.job for claim in result.claims}) == len(numbers)
        assert len(made) <= sum(slot.limit for slot in turn.slots)
        for claim in made:
            assert not result.stats[self.model.get(claim.job).status.category].paused
        assert result.released <= turn.release

    @rule(watch=st.sampled_from(Watch))
    def look_on(self, watch):
        self.watch = watch

    @rule(clean=st.booleans(), held=st.none() | st.frozensets(workers, max_size=3))
    def restart(self, clean, held):
        if clean:
            self.durable.close()
            self.durable = self.open_durable(self.place)
        else:
            self.crash()
        if held is not None:
            assert self.durable.recover(self.now, held) == self.model.recover(self.now, held)

    def crash(self):
        """Go on with what kill -9 would leave: the files as they are, and no close."""
        left = self.place
        self.place = next(self.places)
        shutil.copytree(left, self.place, ignore=shutil.ignore_patterns("lock.mdb"))
        self.durable.close()
        self.durable = self.open_durable(self.place)

    @rule(query=st.none() | queries)
    def read_on(self, query):
        """Begin a listing, or go on with one begun before other jobs moved."""
        if query is not None:
            self.listing = (query, b"", b"")
        query, *after = self.listing
        if None in after:
            return
        pages = [
            store.find(Query(state=query.state, limit=query.limit, after=mark))
            for store, mark in zip((self.model, self.durable), after, strict=True)
        ]
        if query.state is State.PENDING:
            return  # those at a limit may come last
        assert pages[1].jobs == pages[0].jobs
        assert (pages[1].next is None) == (pages[0].next is None)
        self.listing = (query, pages[0].next, pages[1].next)

    @rule(job_id=ids, digits=st.integers(6, 32), at_end=st.booleans(), wait=steps, limit=st.integers(1, 5))
    def ask(self, *, job_id, digits, at_end, wait, limit):
        part = job_id.hex()[-digits:] if at_end else job_id.hex()[:digits]
        assert self.durable.resolve(part) == self.model.resolve(part)
        until = self.now + wait
        assert self.durable.upcoming(until, limit) == self.model.upcoming(until, limit)
        for category in CATEGORIES:
            for state in (None, *State):
                found = [listed(one, state, category, limit) for one in (self.durable, self.model)]
                if state is State.PENDING:
                    found = [sorted(one) for one in found]
                assert found[0] == found[1]

    @invariant()
    def all_jobs_are_equal(self):
        assert counted(self.durable.stats()) == counted(self.model.stats())
        assert self.durable.journals() == self.model.journals()
        for name, found in self.model.stats().items():
            assert found.ready <= 0 or self.durable.stats()[name].ready > 0
        for job_id in self.known:
            assert self.durable.get(job_id) == self.model.get(job_id)
        assert dump(self.durable) == dump(self.model)

    def teardown(self):
        if hasattr(self.durable, "_env"):
            check_rows(self.durable)
        self.model.close()
        self.durable.close()
        again = MemoryStore()
        assert replay(self.log, again) == self.turns
        assert dump(again) == dump(self.model)
        self.folder.cleanup()

    def request(self, jobs, **changes):
        return Request(jobs=[self.new_job(**job) for job in jobs], **changes)

    def outcome(self, *, which, state, took, wait, log, unspent, parked_for, terms):
        job_id, claim = self.held(*which)
        job = self.model.get(job_id)
        asks_for_terms = state is State.PENDING and terms and job is not None and job.status.terms is None
        completed = state is State.COMPLETED
        return Outcome(
            job_id,
            claim,
            state,
            self.now - took,
            self.now,
            bytes((took,)) if completed and took else None,
            None if completed and took != 1 else JobError(f"failed after {took}"),
            self.now + wait if state is State.SCHEDULED else 0,
            log,
            bool(asks_for_terms) or (unspent and state is State.SCHEDULED),
            parked_for if state is State.PARKED else ParkedFor.NOTHING,
            terms if asks_for_terms else None,
        )

    def running(self):
        """Return the jobs in progress."""
        return [job_id for jobs in self.model.in_progress().values() for job_id in jobs]

    def held(self, place, is_live, job_id):
        """Return job and claim number of a job in progress, or of one that may not be."""
        running = self.running()
        if is_live and running:
            job_id = running[place % len(running)]
            return job_id, self.model.get(job_id).status.claim
        return job_id, place + 1


def listed(store, state, category=None, limit=200):
    """Return the ids of all jobs that a query finds, on pages of so many."""
    found, after = [], b""
    while after is not None:
        page = store.find(Query(state=state, category=category, limit=limit, after=after))
        found += [job.id for job in page.jobs]
        after = page.next
    return found


def counted(stats):
    """Return stats without `limited`: a store may count a job only once it met it at a claim."""
    return {name: (found.counts, found.paused, found.resume_at) for name, found in stats.items()}


def without_limited(result):
    return msgspec.structs.replace(result, stats=counted(result.stats))


def check_rows(store):
    """Check that the rows of an LMDB store agree with the statuses of its jobs."""
    with store._env.begin() as txn:
        rows = {name: dict(txn.cursor(db=getattr(store._dbs, name))) for name in store._dbs.__slots__}
    statuses = {job_id: layout.decode_status(data) for job_id, data in rows["statuses"].items()}
    places = [*rows["pending"].values(), *rows["limited"].values()]
    places += [key[8:] for key in rows["scheduled"]] + [key[9:] for key in rows["ended"]]
    places += [value[:16] for value in rows["running"].values()]
    assert sorted(places) == sorted(statuses)
    for name in ("jobs", "results", "attempts"):
        assert {key[:16] for key in rows[name]} <= statuses.keys(), name
    states = Counter((one.category, one.state) for one in statuses.values())
    for name, found in store.stats().items():
        assert found.counts == [states[name, state] for state in State]
    assert sum(found.limited for found in store.stats().values()) == len(rows["limited"])
    running = Counter(
        limit.key
        for one in statuses.values()
        if one.state is State.IN_PROGRESS and one.terms
        for limit in one.terms.limits
    )
    counts = {key: msgspec.msgpack.decode(unseal(data))[1] for key, data in rows["limits"].items()}
    assert {key: count for key, count in counts.items() if count} == dict(running)
    for key, holder in rows["unique"].items():
        assert statuses[holder].terms.unique == key
        assert rules.holds_key(statuses[holder])


def dump(store):
    """Return all that can be seen in a store."""
    return {
        "jobs": {job_id: store.get(job_id) for job_id in IDS},
        "listed": {
            state: sorted(found) if state is State.PENDING else found
            for state in (None, *State)
            for found in [listed(store, state)]
        },
        "stats": counted(store.stats()),
        "in progress": store.in_progress(),
        "decisions": store.decisions(100),
    }


@pytest.mark.timeout(3600)
def test_a_durable_store_does_what_the_model_does(open_durable, new_job, profile, monkeypatch):
    # Low enough for random turns to reach them.
    monkeypatch.setattr(rules, "INTERRUPTION_LIMIT", 2)
    monkeypatch.setattr(rules, "CRASH_LIMIT", 2)
    monkeypatch.setattr(memory, "KEPT_ATTEMPTS", 2)
    monkeypatch.setattr(layout, "KEPT_ATTEMPTS", 2)
    monkeypatch.setattr(lmdb_requests, "_MANY", 2)
    run_state_machine_as_test(partial(StoresAgree, open_durable, new_job), settings=profile)

"""Schedules: every durable store does what the memory store does, and a repetition changes nothing."""

import shutil
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from turns import outcome

from jobsched.clock import from_micros
from jobsched.due_times import first_due
from jobsched.firing import fire, put_off, set_back
from jobsched.job import Terms
from jobsched.schedule import (
    FiringKind,
    PutSchedule,
    RemoveSchedule,
    RunSchedule,
    Schedule,
    SwitchSchedule,
)
from jobsched.scheduler import Scheduler
from jobsched.store import schedule_steps
from jobsched.store.base import Accepted, Request, Slot, Turn
from jobsched.store.memory import MemoryStore
from jobsched.trigger import Cron, Every, Once
from jobsched.trigger_data import to_data

MEMORY = Path("/dev/shm")
SECOND = 1_000_000
START = 1_772_582_400 * SECOND
NAMES = ["a", "a b", "é", "e\u0301", "n" * 200]

names = st.sampled_from(NAMES)
waits = st.sampled_from([0, 1, SECOND, SECOND, 3 * SECOND, 7 * SECOND + 5, 60 * SECOND, 4000 * SECOND])
back = st.sampled_from([0, 0, 0, 0, 0, 2 * SECOND, 3600 * SECOND])
triggers = st.sampled_from(
    [
        Every(1, anchor=from_micros(START)),
        Every(13, anchor=from_micros(START + 5)),
        Cron("* * * * * *", seconds=True),
        Cron("*/5 * * * *", timezone="Europe/Berlin"),
        Once(from_micros(START + 30 * SECOND)),
    ]
)
schedules = st.fixed_dictionaries(
    {
        "name": names,
        "trigger": triggers.map(to_data) | st.just(["cron", "* * * * *", "Mars/Olympus", False]),
        "category": st.sampled_from(["mail", "reports"]),
        "terms": st.builds(Terms, unique=st.sampled_from([b"", b"", b"u" * 16])),
        "on_conflict": st.sampled_from(["keep", "refuse", "replace"]),
        "max_runs": st.sampled_from([0, 0, 2]),
        "jitter_s": st.sampled_from([0.0, 0.0, 5.0]),
        "misfire": st.sampled_from(["run_once", "run_all", "skip"]),
        "most": st.integers(1, 4),
        "grace_s": st.none() | st.just(2.0),
        "overlap": st.sampled_from(["allow", "skip", "queue"]),
    }
)
revisions = st.sampled_from(["as it is", "as it is", "any", "new", "stale"])


class SchedulesAgree(RuleBasedStateMachine):
    """The same turns go to the model and to a durable store; whatever can be seen is the same."""

    def __init__(self, open_durable, new_job) -> None:
        super().__init__()
        self.open_durable = open_durable
        self.new_job = new_job
        self.folder = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.places = (Path(self.folder.name, f"store-{n}") for n in count())
        self.place = next(self.places)
        self.model = MemoryStore()
        self.durable = open_durable(self.place)
        self.now = START
        self.ids = (n.to_bytes(16, "big") for n in count(1))
        self.last = None
        self.firings = []
        self.jobs: set[bytes] = set()

    # What clients ask for.

    @rule(made=schedules, revision=revisions, is_active=st.sampled_from([None, True, False]), late=waits)
    def put(self, made, revision, is_active, late):
        schedule = Schedule(task="tasks:mark", **made)
        self.ask(schedules=[self.change(schedule, revision, is_active, self.now - late)])

    @rule(
        made=st.lists(schedules, min_size=2, max_size=3, unique_by=lambda one: one["name"]),
        removed=names,
        jobs=st.integers(0, 20),
    )
    def batch(self, made, removed, jobs):
        puts = [self.change(Schedule(task="tasks:mark", **one), "any", None, self.now) for one in made]
        added = [self.new_job(job_id=next(self.ids)) for _ in range(jobs)]
        assume(removed not in {one["name"] for one in made})
        self.ask(jobs=added, schedules=[*puts, RemoveSchedule(removed)])

    @rule(name=names)
    def remove(self, name):
        self.ask(schedules=[RemoveSchedule(name)])

    @rule(name=names, revision=revisions, is_active=st.booleans())
    def switch(self, name, revision, is_active):
        found = self.model.schedule(name)
        due = self.due(found.schedule, self.now) if found and is_active else (0, 0)
        expects = self.revision(name, revision)
        assume(expects is not None)
        self.ask(schedules=[SwitchSchedule(name, is_active, *due, expects)])

    @rule(name=names, is_unique=st.booleans())
    def run_now(self, name, is_unique):
        terms = Terms(unique=b"u" * 16) if is_unique else None
        job = self.new_job(job_id=next(self.ids), terms=terms)
        self.ask(jobs=[job], schedules=[RunSchedule(name, job.id)])

    def change(self, schedule, revision, is_active, at):
        due = (0, 0) if is_active is False else self.due(schedule, at)
        expects = self.revision(schedule.name, revision)
        found = self.model.schedule(schedule.name)
        if found and found.schedule.trigger == schedule.trigger and is_active is None and expects is not None:
            return PutSchedule(schedule, None, 0, expects)
        return PutSchedule(schedule, *due, expects, is_active)

    def due(self, schedule, at):
        if "Mars/Olympus" in schedule.trigger:
            return at + SECOND, at + SECOND
        return first_due(schedule, at)

    def revision(self, name, which):
        found = self.model.schedule(name)
        now = found.state.revision if found else 0
        return {"as it is": now, "any": None, "new": 0, "stale": max(0, now - 1)}[which]

    def ask(self, **changes):
        request = Request(**changes)
        accepted = self.turn(requests=[request]).replies[0]
        self.last = request if isinstance(accepted, Accepted) else None

    @precondition(lambda self: self.last)
    @rule(wait=st.sampled_from([0, 1, 700]))
    def ask_again(self, wait):
        """Repeat the last request: its answer got lost."""
        self.now += wait
        before = dump(self.model, self.jobs)
        assert isinstance(self.turn(requests=[self.last]).replies[0], Accepted)
        assert dump(self.model, self.jobs) == before

    # What the node does.

    @rule(wait=waits, step=back)
    def fire(self, wait, step):
        self.now += wait - step
        self.last = None
        due = self.model.due_schedules(self.now, 9)
        assert self.durable.due_schedules(self.now, 9) == due
        self.firings = [self.firing(stored) for stored in due]
        result = self.turn(firings=self.firings)
        for name, record in result.fired:
            if record.kind is FiringKind.FIRED:
                assert record.until_at <= self.now
                assert self.model.get(record.job) is not None, name

    def firing(self, stored):
        try:
            return fire(stored, self.now, lambda: next(self.ids))
        except ValueError as error:
            return put_off(stored, self.now, self.now + 60 * SECOND, str(error))

    @precondition(lambda self: self.firings)
    @rule()
    def fire_again(self):
        """Repeat firings that are on disk, and any that somebody has overtaken."""
        before = dump(self.model, self.jobs)
        stale = [msgspec.structs.replace(one, due_at=one.due_at - 1) for one in self.firings]
        if all(self.has_moved(one) for one in self.firings):
            self.turn(firings=[*self.firings, *stale])
        else:
            self.turn(firings=stale)
        assert dump(self.model, self.jobs) == before

    def has_moved(self, firing):
        found = self.model.schedule(firing.name)
        return found is None or (found.state.revision, found.state.next_at) != (
            firing.revision,
            firing.due_at,
        )

    @rule()
    def look_at_the_clock(self):
        page = self.model.schedules()
        assert self.durable.schedules() == page
        self.last = None
        self.firings = []
        self.turn(firings=[found for stored in page if (found := self.set_back(stored)) is not None])

    def set_back(self, stored):
        try:
            return set_back(stored, self.now) if stored.state.is_active else None
        except ValueError:
            return None

    @rule(ends=st.booleans())
    def work(self, ends):
        claims = self.turn(slots=[Slot(name, 1, 3) for name in ("mail", "reports")], release=9).claims
        if ends:
            self.turn(outcomes=[outcome(held, ended_at=self.now) for held in claims])
        self.last = None

    @rule(ago=waits)
    def forget(self, ago):
        self.turn(forget_ended=self.now - ago)
        self.last = None

    def turn(self, **parts):
        turn = Turn(now=self.now, **parts)
        expected, found = self.model.apply(turn), self.durable.apply(turn)
        assert (found.fired, found.next_fire) == (expected.fired, expected.next_fire)
        assert (found.replies, found.claims) == (expected.replies, expected.claims)
        for request in turn.requests:
            self.jobs |= {job.id for job in request.jobs}
        for firing in turn.firings:
            self.jobs |= {job.id for job in firing.jobs}
        return expected

    @rule(clean=st.booleans())
    def reopen(self, clean):
        """Close and open, or go on with the files as kill -9 would leave them."""
        if not clean:
            left, self.place = self.place, next(self.places)
            shutil.copytree(left, self.place, ignore=shutil.ignore_patterns("lock.mdb"))
        self.durable.close()
        self.durable = self.open_durable(self.place)

    @invariant()
    def all_is_equal(self):
        assert dump(self.durable, self.jobs) == dump(self.model, self.jobs)

    @invariant()
    def no_due_time_is_on_two_records(self):
        for name in NAMES:
            records = [
                record
                for record in reversed(self.model.firings(name))
                if record.kind in (FiringKind.FIRED, FiringKind.SKIPPED)
            ]
            for before, after in pairwise(records):
                if before.at <= after.at:  # else the clock was set back, and an interval counts anew
                    assert before.until_at < after.due_at

    @invariant()
    def a_scheduler_comes_to_rest(self):
        scheduler = Scheduler()
        scheduler.open(self.durable)
        first = self.model.due_schedules(1 << 62, 1)
        assert scheduler._next_fire == (first[0].state.fire_at if first else None)

    def teardown(self):
        self.durable.close()
        self.folder.cleanup()


def dump(store, jobs):
    """Return all that can be seen of schedules and their jobs."""
    return {
        "schedules": store.schedules(),
        "each": [(store.schedule(name), store.firings(name)) for name in NAMES],
        "paged": [store.firings(name, 2, START + 60 * SECOND) for name in NAMES],
        "after": store.schedules("a", 2),
        "due": store.due_schedules(START + 100 * SECOND, 2),
        "jobs": {job: store.get(job) for job in jobs},
    }


@pytest.mark.timeout(3600)
def test_a_durable_store_does_with_schedules_what_the_model_does(open_durable, new_job, profile, monkeypatch):
    monkeypatch.setattr(schedule_steps, "KEPT_FIRINGS", 6)  # low enough to be reached
    run_state_machine_as_test(partial(SchedulesAgree, open_durable, new_job), settings=profile)

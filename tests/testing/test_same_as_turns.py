"""What goes through an app ends as it does where a model applies the turns by hand."""

import random
from datetime import timedelta

import pytest
import scripted_tasks as tasks
from local_world import START

from jobsched import ConcurrencyLimit, Cron, Dispatcher, Every, Unique
from jobsched.clock import MICROSECONDS, to_micros
from jobsched.codec import decode_arguments, decode_record, decode_result, encode_result
from jobsched.config import parse_config
from jobsched.firing import fire
from jobsched.job import JobError, State
from jobsched.job_id import new_id, parse_id
from jobsched.store.base import Outcome, Query, Slot, Turn
from jobsched.store.memory import MemoryStore
from jobsched.store.schedule_query import findings
from jobsched.testing import LocalApp

CONFIG = "tasks = ['scripted_tasks']\nworkers = 3\n[categories.mail]\nmax_retries = 2\n[categories.reports]\n"
HOURS = 6


class Model:
    """A dispatcher's transport and clock, and the turns of a node whose jobs take no time."""

    def __init__(self, folder):
        self.at = to_micros(START)
        self.store = MemoryStore()
        self.store.recover(self.at)
        self.runs = {}
        self.retries = {
            name: config.max_retries for name, config in parse_config(CONFIG, folder).categories.items()
        }
        self.dispatcher = Dispatcher(parse_config(CONFIG, folder), transport=self, clock=self)

    def now(self):
        return self.at

    def monotonic(self):
        return 0.0

    def exchange(self, requests):
        return self.store.apply(Turn(now=self.at, requests=requests)).replies

    def find(self, query):
        return findings(self.store, query)

    def run_due(self, until):
        """Go from one moment at which something is due to the next."""
        while True:
            result = self.work()
            dues = [due for due in (result.next_due, result.next_fire) if due is not None]
            if not dues or min(dues) > until:
                self.at = max(until, self.at)
                return
            self.at = min(dues)

    def work(self):
        while True:
            firings = [fire(stored, self.at, new_id) for stored in self.store.due_schedules(self.at, 100)]
            slots = [Slot("mail", 1, 1), Slot("reports", 2, 1)]
            result = self.store.apply(Turn(now=self.at, release=100, firings=firings, slots=slots))
            if not result.claims and not result.released and not firings:
                return result
            outcomes = [self.outcome(claim) for claim in result.claims]
            self.store.apply(Turn(now=self.at, outcomes=outcomes))

    def outcome(self, claim):
        record = decode_record(claim.record)
        (script,), _ = decode_arguments(record)
        retries = self.retries[record.category] if record.max_retries is None else record.max_retries
        run = self.runs.get(claim.job, 0)
        self.runs[claim.job] = run + 1
        step = script[min(run, len(script) - 1)]

        def ended(state, wait_s=0.0, **more):
            due_at = self.at + int(wait_s * MICROSECONDS) if wait_s else 0
            return Outcome(claim.job, claim.number, state, self.at, self.at, due_at=due_at, **more)

        error = JobError(step)
        if step == "ok":
            return ended(State.COMPLETED, result=encode_result(claim.attempt))
        if step == "discard":
            return ended(State.CANCELLED, error=error)
        if step == "snooze":
            return ended(State.SCHEDULED, 60, unspent=True)
        if claim.attempt > retries:
            return ended(State.FAILED, error=error)
        return ended(State.SCHEDULED, 30 if step == "retry" else 10 * 2 ** (claim.attempt - 1), error=error)


def operations(rng):
    """Return dispatches and schedules at random moments, in their order."""
    found = []
    for at in sorted(rng.randrange(HOURS * 3600) for _ in range(40)):
        script = rng.choices(
            ["ok", "fail", "retry", "snooze", "discard"], [4, 3, 1, 1, 0.3], k=rng.randint(1, 4)
        )
        options = {"args": (script if script[-1] != "snooze" else [*script, "ok"],)}
        if rng.random() < 0.3:
            options["delay"] = rng.randrange(1, 4000)
        if rng.random() < 0.3:
            options["unique"] = Unique(key=rng.choice("ab"), on_conflict=rng.choice(["keep", "replace"]))
        if rng.random() < 0.3:
            options["limit"] = ConcurrencyLimit(rng.choice("xy"), 1)
        if rng.random() < 0.2:
            options["expires_in"] = rng.randrange(1, 3000)
        if rng.random() < 0.2:
            options["at_most_once"] = True
        if rng.random() < 0.3:
            options["max_retries"] = rng.randrange(3)
        if rng.random() < 0.3:
            options["priority"] = rng.randrange(-2, 3)
        found.append((at, rng.choice(["mail", "reports"]), options))
    return found


def feed(dispatcher, run_due, rng):
    """Have operations done, and all that falls due between them; return the jobs."""
    schedules = dispatcher.schedules
    schedules.add(
        "every", tasks.scripted, Every(timedelta(minutes=17)), "mail", args=(["fail", "ok"],), overlap="skip"
    )
    schedules.add("cron", tasks.scripted, Cron("*/40 * * * *"), "reports", args=(["ok"],), misfire="run_all")
    jobs = []
    for at, category, options in operations(rng):
        run_due(START + timedelta(seconds=at))
        if rng.random() < 0.1:
            dispatcher.pause(category, 600)
        jobs.append(dispatcher.dispatch(tasks.scripted, category, **options).id)
    run_due(START + timedelta(hours=HOURS + 2))
    return jobs


def ends(store, jobs):
    """Return what became of the jobs dispatched, and of all others (those that schedules fired)."""

    def told(stored):
        status = stored.status
        result = None if stored.result is None else decode_result(stored.result)
        return (
            str(status.state), status.category, status.priority, status.attempt, status.crashes,
            status.started_at, status.ended_at, status.due_at, result,
        )  # fmt: skip

    page = store.find(Query(limit=200))
    assert page.next is None
    known = {parse_id(job) for job in jobs}
    return (
        [told(store.get(parse_id(job))) for job in jobs],
        sorted(told(stored) for stored in page.jobs if stored.id not in known),
        [[record[:4] for record in map(_fields, store.firings(name))] for name in ("every", "cron")],
    )


def _fields(record):
    return (record.due_at, record.count, record.kind, record.at, record.why and record.why[:10])


@pytest.mark.parametrize("seed", range(12))
def test_an_app_ends_every_job_as_turns_by_hand_do(seed, tmp_path):
    model = Model(tmp_path)
    jobs = feed(model.dispatcher, lambda until: model.run_due(to_micros(until)), random.Random(seed))
    expected = ends(model.store, jobs)
    with LocalApp(parse_config(CONFIG, tmp_path), start=START) as app:
        ours = feed(app.dispatcher, app.run_due, random.Random(seed))
        got = ends(app.dispatcher._transport.node.store, ours)
    assert got == expected
    assert len({state for state, *_ in expected[0]}) > 1
    assert len(expected[2][0]) > 20

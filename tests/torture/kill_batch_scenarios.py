"""kill -9 amid batches of dispatches and changes of schedules: all of each, or nothing of it."""

import datetime as dt
import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from clients import Client, Work
from history import Ledger
from nodes import Node, Project, eventually
from scenario import Figure, Torture, scenario
from structure import structural_problems

from jobsched import Cron, Dispatcher, Every
from jobsched.errors import ScheduleChanged
from jobsched.job_id import parse_id
from jobsched.store.base import JobStore

SIZES = (0, 1, 2, 15, 16, 17, 100, 700, 5000)
MODES = ("client", "client", "client, no node", "client, no node", "node", "both")
LATER = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)
TASK = "tasks:mark"
AT_MOST_S = 40.0
SLOWEST = 1.2  # times the commit of a batch of that size, that is how late kills come


@scenario("kill-batches", quick={"batches": 8}, full={"batches": 200})
def kill_batches(torture: Torture, batches: int) -> dict[str, Figure]:
    """kill -9 of clients and nodes amid batches of jobs and schedules: all or none of each is there."""
    run = Run(torture, batches)
    for number in range(batches):
        run.batch(number)
        torture.progress(f"kill-batches: {number + 1} of {batches}")
    return run.judged()


class Run:
    """A project, a node that comes and goes, one client after the other."""

    def __init__(self, torture: Torture, batches: int) -> None:
        self._torture = torture
        self._rng = torture.rng
        self._project: Project = torture.project()
        self._project.configure({"jobs": {}}, workers=1)
        self._folder = torture.folder / "tries"
        self._folder.mkdir()
        self._node: Node | None = None
        self._modes: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        dispatcher = self._project.dispatcher()
        dispatcher.pause("jobs")
        with dispatcher.batch() as batch:
            batch.schedule_recurring("base", TASK, Every(86_400), "jobs", args=("base",))
            for number in range(batches):
                batch.schedule_once(f"spare {number}", TASK, LATER, "jobs", args=("spare",))
        dispatcher.close()

    def batch(self, number: int) -> None:
        mode = MODES[number % len(MODES)] if number < len(MODES) else self._rng.choice(MODES)
        self._modes[mode] += 1
        self._have_node(wanted="no node" not in mode)
        size = self._rng.choice(SIZES)
        tried = self._folder / f"{number}.json"
        client = Client(
            self._project.config, self._folder / f"{number}.ledger", committing(number, size, tried)
        )
        eventually(lambda: tried.with_suffix(".sent").exists(), AT_MOST_S)
        time.sleep(self._rng.uniform(0, SLOWEST * (0.003 + size * 0.00004)))
        if mode in ("node", "both") and self._node is not None:
            self._node.kill()
            self._node = None
        if mode != "node":
            client.kill()
        self._ends[str(client.end())] += 1

    def _have_node(self, *, wanted: bool) -> None:
        if wanted and self._node is None:
            self._node = self._project.start()
        if not wanted and self._node is not None:
            self._node.kill()
            self._node = None

    def judged(self) -> dict[str, Figure]:
        self._have_node(wanted=False)
        halves, lost = [], []
        committed = 0
        with self._project.store() as store:
            store._env.begin(write=True).abort()  # see kill_node_scenarios
            for path in sorted(self._folder.glob("*.json")):
                tried = json.loads(path.read_text())
                there = found(store, tried)
                committed += all(there.values())
                if len(set(there.values())) > 1:
                    halves.append(f"batch {path.stem}: {Counter(there.values())}")
                if path.with_suffix(".acked").exists() and not all(there.values()):
                    lost.append(path.stem)
            base = store.schedule("base")
        assert base is not None
        revision = base.state.revision - 1
        self._torture.check(
            revision == committed, f"base was changed {revision} times, by {committed} batches"
        )
        self._torture.check(self._ends.keys() <= {"0", "-9"}, f"clients ended by {dict(self._ends)}")
        self._torture.check(committed > 0, "no batch was committed")
        return {
            "batches": self._modes,
            "ends": self._ends,
            "committed": committed,
            **self._torture.check_none(
                half_batches=halves,
                lost_batches=lost,
                structural_problems=structural_problems(self._project.store_path),
            ),
        }


def committing(number: int, size: int, tried: Path) -> Work:
    """Return what a client does: one batch, and files that say how far it has come."""

    def work(dispatcher: Dispatcher, ledger: Ledger) -> None:
        rng = random.Random(number)
        try:
            with dispatcher.batch() as batch:
                jobs = [batch.dispatch(TASK, "jobs", args=(f"{number}-{place}",)) for place in range(size)]
                batch.schedule_once(f"once {number}", TASK, LATER, "jobs", args=("once",))
                trigger = rng.choice([Every(86_400), Cron("0 3 * * *")])
                batch.schedule_recurring(f"again {number}", TASK, trigger, "jobs", args=("again",))
                batch.schedules.update("base", priority=number)
                batch.schedules.remove(f"spare {number}")
                tried.write_text(json.dumps({"number": number, "jobs": [job.id for job in jobs]}))
                tried.with_suffix(".sent").touch()
        except ScheduleChanged:  # what a client that was killed had sent came in between
            return
        descriptor = os.open(tried.with_suffix(".acked"), os.O_CREAT | os.O_WRONLY, 0o600)
        os.fsync(descriptor)

    return work


def found(store: JobStore, tried: dict[str, Any]) -> dict[str, bool]:
    """Return for each part of a batch whether it is there."""
    number = tried["number"]
    there = {job: store.get(parse_id(job)) is not None for job in tried["jobs"]}
    for name in (f"once {number}", f"again {number}"):
        there[name] = store.schedule(name) is not None
    there["spare"] = store.schedule(f"spare {number}") is None
    return there

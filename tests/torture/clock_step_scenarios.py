"""Wall clocks that are set while schedules fire: nothing early, nothing twice, nothing unrecorded."""

import datetime as dt
import mmap
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from firing_history import Diary, FiredJobs, early, uncovered
from nodes import Node, Project, eventually
from scenario import HERE, Figure, Torture, scenario
from structure import structural_problems

from jobsched import Cron, Dispatcher, Every
from jobsched.clock import MICROSECONDS, to_micros
from jobsched.config import load_config
from jobsched.job import State
from jobsched.schedule import FiringKind, FiringRecord
from jobsched.trigger import Trigger

WORKERS = 3
HOUR_S, DAY_S = 3600, 86_400
STEPS_S = (2, -2, HOUR_S, -HOUR_S, DAY_S, -DAY_S)
STOPPED_S = 5.0
WAIT_S = (1.2, 2.5)  # between two steps
NOTICED_S = 1.0  # after so long at most the node knows that its clock was set
SLACK_S = 1.0  # for a busy machine
NEAREST = "every 1"
EARLY_S = 0.05
BEGIN = dt.datetime(2026, 3, 29, 0, 59, 50, tzinfo=dt.UTC)  # ten seconds before Berlin's clocks are set
BERLIN = "Europe/Berlin"
INTERVALS_S = {"every 1": 1, "every 2": 2, "every 60": 60}


def cron(expr: str, zone: str = "UTC") -> Trigger:
    return Cron(expr, timezone=zone, seconds=len(expr.split()) == 6)


SCHEDULES: dict[str, tuple[Trigger, dict[str, object]]] = {
    "every 1": (Every(1), {}),
    "every 2": (Every(2), {"misfire": "run_all", "most": 3}),
    "every 60": (Every(60), {"misfire": "skip", "grace": 5}),
    "second": (cron("* * * * * *"), {}),
    "second all": (cron("* * * * * *", BERLIN), {"misfire": "run_all", "most": 5}),
    "second skip": (cron("*/2 * * * * *", "America/New_York"), {"misfire": "skip", "grace": 1}),
    "second jitter": (cron("*/2 * * * * *"), {"jitter": 30}),
    "queued": (cron("* * * * * *"), {"misfire": "run_all", "most": 2, "overlap": "queue"}),
    "minute": (cron("* * * * *", BERLIN), {"misfire": "run_all", "most": 4}),
    "gap": (cron("15,45 2 * * *", BERLIN), {"misfire": "run_all", "most": 9}),
    "night": (cron("30 2 * * *", BERLIN), {}),
}


class SteppedClock:
    """A clock that a test sets, for this process and, by a file, for the node's."""

    def __init__(self, path: Path, begin: dt.datetime) -> None:
        self.path = path
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        self._steps: list[tuple[int, int]] = []
        self.step(to_micros(begin) - time.time_ns() // 1000)

    def step(self, micros: int) -> None:
        offset = self.offset + micros
        self._offset[:8] = struct.pack("<q", offset)
        self._steps.append((time.monotonic_ns(), offset))

    @property
    def offset(self) -> int:
        return self._steps[-1][1] if self._steps else 0

    def now(self) -> int:
        return time.time_ns() // 1000 + self.offset

    def monotonic(self) -> float:
        return time.monotonic()

    def at(self, monotonic_ns: int) -> int:
        """Return what the clock showed at an instant: the most, if it was set just then."""
        wall = time.time_ns() // 1000 - (time.monotonic_ns() - monotonic_ns) // 1000
        near = [offset for at, offset in self._steps if at <= monotonic_ns][-1:]
        near += [offset for at, offset in self._steps if abs(at - monotonic_ns) < 1e9]
        before = [offset for at, offset in self._steps if at <= monotonic_ns - 1e9][-1:]
        return wall + max(near + before)


@scenario("clock-steps", quick={"steps": 4}, full={"steps": 150})
def clock_steps(torture: Torture, steps: int) -> dict[str, Figure]:
    """Set the clock by seconds, hours and days at work: schedules fire each due time once, none early."""
    run = Run(torture, torture.project())
    run.begin()
    done: Counter[str] = Counter()
    for number in range(steps):
        time.sleep(torture.rng.uniform(*WAIT_S))
        run.dispatch()
        step = run.next_step()
        done[f"{step:+} s"] += 1
        run.step(step, restarts=number % 5 == 3)
        if number % 12 == 5:
            run.suspend()
        torture.progress(f"clock-steps: {number + 1} of {steps} steps")
    return {"steps": done, **run.end()}


class Run:
    """A project whose node has a clock that is set, its schedules and what they have left."""

    def __init__(self, torture: Torture, project: Project) -> None:
        self._torture = torture
        self._project = project
        self._clock = SteppedClock(torture.folder / "clock", BEGIN)
        project.configure({"ticks": {}, "jobs": {}}, workers=WORKERS, tasks=["tasks", "clock_step_tasks"])
        project.environment |= {
            "CLOCK_FILE": str(self._clock.path),
            "PYTHONPATH": f"{HERE / 'stepped'}:{project.environment['PYTHONPATH']}",
        }
        self._dispatcher = Dispatcher(load_config(project.config), clock=self._clock)
        project.dispatchers.append(self._dispatcher)
        self._node: Node = project.start()
        self._diary = Diary()
        self._written: dict[str, list[FiringRecord]] = defaultdict(list)
        self._firsts: dict[str, int] = {}
        self._shift_s = 0
        self._jobs: list[str] = []
        self.resumed_s: list[float] = []

    def begin(self) -> None:
        for name, (trigger, options) in SCHEDULES.items():
            made = self._dispatcher.schedules.add(
                name, "clock_step_tasks:ticked", trigger, "ticks", **options
            )
            assert made.next_at is not None
            self._firsts[name] = to_micros(made.next_at)

    def dispatch(self) -> None:
        """Give the node other things to do whose time a clock decides."""
        for task, delay in (("delayed", 0.0), ("delayed", 0.5), ("second_time", 0.0)):
            label = f"job-{len(self._jobs)}"
            self._jobs.append(
                self._dispatcher.dispatch(f"clock_step_tasks:{task}", "jobs", delay, args=(label,)).id
            )

    def next_step(self) -> int:
        """Choose a step that leads less than two days away."""
        steps = [step for step in STEPS_S if abs(self._shift_s + step) <= DAY_S + 2 * HOUR_S]
        return self._torture.rng.choice(steps)

    def step(self, seconds: int, *, restarts: bool) -> None:
        self._read()
        if restarts:
            self._node.kill()
        self._shift_s += seconds
        self._clock.step(seconds * MICROSECONDS)
        if restarts:
            self._node = self._project.start()
        if seconds < 0:
            self._check_intervals_go_on()

    def _check_intervals_go_on(self) -> None:
        """See that an interval fires within one step of it, wherever the clock is now."""
        began = time.monotonic()
        before = self._last_job()

        def is_on() -> bool:
            return self._last_job() != before

        eventually(lambda: is_on() or not self._node.is_alive, 20)
        self.resumed_s.append(time.monotonic() - began)
        limit_s = INTERVALS_S[NEAREST] + NOTICED_S + SLACK_S
        self._torture.check_in_time(self.resumed_s[-1], limit_s, "an interval of 1 s after a step back")

    def _last_job(self) -> bytes:
        with self._project.store() as store:
            found = store.schedule(NEAREST)
        assert found is not None
        return found.state.last_job

    def suspend(self) -> None:
        with self._node.stopped():
            time.sleep(STOPPED_S)

    def _read(self) -> None:
        """Read off what was written since the last time, in the order of that writing: what is ahead of the
        clock was written before it was set back.
        """
        now = self._clock.now() + MICROSECONDS
        before = {name: set(records) for name, records in self._diary.records.items()}
        with self._project.store() as store:
            self._diary.read(store, is_whole=True)
        for name, records in self._diary.records.items():
            new = [record for due, record in records.items() if due not in before.get(name, ())]
            self._written[name] += sorted(
                new, key=lambda record: (record.at <= now, record.at, record.due_at)
            )

    def end(self) -> dict[str, Figure]:
        self._read()
        self._clock.step(3 * DAY_S * MICROSECONDS)  # whatever was put off by a step back is due now
        time.sleep(2)
        self._torture.check(self._node.is_alive, f"the node ended by itself: {self._node.end_of_log}")
        for name in SCHEDULES:
            self._dispatcher.schedules.deactivate(name)
        eventually(lambda: not self._node.is_alive or self._project.is_settled(), 60)
        self._read()
        self._node.terminate()
        self._node.wait(30)
        return self._judged()

    def _judged(self) -> dict[str, Figure]:
        jobs = FiredJobs(self._project)
        states = Counter(self._project.states(self._jobs))
        self._torture.check(states.keys() == {str(State.COMPLETED)}, f"dispatched jobs are {dict(states)}")
        self._torture.check(
            jobs.states.keys() == {str(State.COMPLETED)}, f"fired jobs are {dict(jobs.states)}"
        )
        noted = {name: sum(r.kind is FiringKind.NOTED for r in self._written[name]) for name in SCHEDULES}
        for name in ("every 1", "second"):
            self._torture.check(noted[name], f"{name}: no step back is noted")
        return {
            "fired": len(jobs.due_of),
            "dispatched": len(self._jobs),
            "noted": noted,
            "longest_wait_of_an_interval_s": round(max(self.resumed_s, default=0.0), 2),
            **self._torture.check_none(
                wrong_histories=list(self._wrong_histories()),
                early_firings=[text for name in SCHEDULES for text in early(name, self._diary.of(name))],
                early_runs=list(self._early_runs(jobs)),
                storms=list(self._storms()),
                stray_jobs=list(jobs.strays(self._diary, SCHEDULES)),
                runs_twice=list(self._runs_twice()),
                records_that_changed=self._diary.changed,
                structural_problems=structural_problems(self._project.store_path),
            ),
        }

    def _wrong_histories(self) -> Iterator[str]:
        for name in SCHEDULES:
            if name in INTERVALS_S:
                yield from broken_steps(name, self._written[name], INTERVALS_S[name] * MICROSECONDS)
            else:
                records = self._diary.of(name)
                if records:  # one that had not fired begins earlier when the clock is set back
                    first = min(self._firsts[name], records[0].due_at)
                    schedule = self._diary.schedules[name].schedule
                    yield from uncovered(schedule, records, first, records[-1].until_at)

    def _early_runs(self, jobs: FiredJobs) -> Iterator[str]:
        """Yield the runs that began before their time, by the clock as it was set then. One that a death of
        its node has put back was fired by the clock as it was before.
        """
        for run in self._project.runs():
            fired_by = (
                jobs.due_of.get(bytes.fromhex(run.label.replace("-", ""))) if "job" not in run.label else None
            )
            is_early = fired_by and self._clock.at(run.start) < fired_by[1] - EARLY_S * MICROSECONDS
            if fired_by and is_early and not self._project.status(run.label).interruptions:
                yield f"{fired_by[0]}: ran {(fired_by[1] - self._clock.at(run.start)) / 1e6:.3f} s early"

    def _runs_twice(self) -> Iterator[str]:
        """Yield the jobs that ran again though no death of their node had put them back."""
        for label, runs in self._project.runs_by_label().items():
            job = self._jobs[int(label.removeprefix("job-"))] if label.startswith("job-") else label
            if len(runs) > 1 and not self._project.status(job).interruptions:
                yield label

    def _storms(self) -> Iterator[str]:
        """Yield the schedules that fired more at once than their policy says."""
        for name, (_, options) in SCHEDULES.items():
            at_once = Counter(record.at for record in self._written[name] if record.kind is FiringKind.FIRED)
            if at_once and max(at_once.values()) > int(str(options.get("most", 1))):
                yield f"{name}: fired {max(at_once.values())} at once"


def broken_steps(name: str, records: list[FiringRecord], step: int) -> Iterator[str]:
    """Yield where the due times of an interval, in the order in which they were recorded, do not follow
    each other; where it counts anew that is noted.
    """
    due = None
    for record in records:
        if record.kind is FiringKind.NOTED:
            due = record.at + step
            continue
        if due is not None and record.due_at != due:
            yield f"{name}: due at {record.due_at}, expected {due}"
        if record.count != (record.until_at - record.due_at) // step + 1:
            yield f"{name}: {record.count} due times from {record.due_at} to {record.until_at}"
        due = record.until_at + step

"""kill -9 of nodes whose schedules fire every second: each due time is covered by exactly one record."""

import contextlib
import random
import time
from collections.abc import Callable
from itertools import count

from clients import Crowd, Work
from firing_history import Diary, FiredJobs, early, uncovered
from history import Ledger
from nodes import Project, eventually
from scenario import Figure, Torture, scenario
from structure import structural_problems

from jobsched import Cron, Dispatcher, Every
from jobsched.clock import to_micros
from jobsched.errors import JobschedError, ScheduleChanged, ScheduleExists, ScheduleNotFound
from jobsched.trigger import Trigger

CATEGORIES = {"ticks": {}, "slow": {}}
WORKERS = 3
CLIENTS = 2
NAMES = 20  # of schedules that clients change
LONGEST_S = 1.2  # of a node's life at work
REST_S = 2.5  # with no node, now and then: more than one due time is missed
SLOW_S = 1.3  # that a job of an overlapping schedule takes
ENDS = {"completed", "parked"}  # these were interrupted 20 times
EVERY_SECOND = "* * * * * *"


@scenario("kill-schedules", quick={"kills": 5, "schedules": 12}, full={"kills": 300, "schedules": 50})
def kill_schedules(torture: Torture, kills: int, schedules: int) -> dict[str, Figure]:
    """kill -9 of the node while schedules fire: each due time has exactly one record, each record one job."""
    project = torture.project()
    project.configure(CATEGORIES, workers=WORKERS, tasks=["tasks", "schedule_tasks"])
    diary, firsts = Diary(), add_all(project, torture.rng, schedules)
    stop = torture.folder / "stop"
    crowd = Crowd(project.config, torture.folder / "ledgers", changing(stop.exists), CLIENTS)
    crowd.fill(torture.rng)
    ready_s = []
    for kill in range(kills):
        began = time.monotonic()
        node = project.launch()
        if torture.rng.random() < 0.8:
            eventually(lambda node=node: project.answers() or not node.is_alive, 30)
            ready_s.append(time.monotonic() - began)
            time.sleep(torture.rng.uniform(0, LONGEST_S))
        else:
            time.sleep(torture.rng.uniform(0, 0.5))
        torture.check(node.is_alive, f"the node ended by itself: {node.end_of_log}")
        node.kill()
        read(project, diary)
        if kill % 20 == 3:
            time.sleep(REST_S)
        torture.progress(f"kill-schedules: {kill + 1} of {kills} kills")
    stop.touch()
    crowd.wait(60)
    torture.check(not crowd.unexpected_ends, f"clients ended otherwise: {crowd.unexpected_ends}")
    until = run_on(project, list(firsts))
    read(project, diary)
    return {
        "kills": kills,
        "records": sum(map(len, diary.records.values())),
        **judged(torture, project, diary, firsts, until),
        **torture.check_none(structural_problems=structural_problems(project.store_path)),
    }


def add_all(project: Project, rng: random.Random, number: int) -> dict[str, int]:
    """Add schedules of all kinds, straight to the store; return the first due time of each."""
    schedules = project.dispatcher().schedules
    firsts = {}
    for place in range(number):
        name = f"s{place:03}"
        trigger: Trigger = Every(1) if place % 2 else Cron(EVERY_SECOND, seconds=True)
        misfire, grace = rng.choice([("run_all", None), ("run_once", None), ("skip", 0.5), ("run_once", 1.0)])
        overlap = ("allow", "allow", "skip", "queue")[place % 4]
        is_slow = overlap == "skip"
        info = schedules.add(
            name,
            "schedule_tasks:tick",
            trigger,
            "slow" if is_slow else "ticks",
            args=(name, SLOW_S if is_slow else 0.0),
            misfire=misfire,
            grace=grace,
            overlap=overlap,
            most=rng.choice([1, 3, 100]),
            jitter=rng.choice([0, 0, 0.5, 5.0]),
        )
        assert info.next_at is not None
        firsts[name] = to_micros(info.next_at)
    return firsts


def changing(is_over: Callable[[], bool]) -> Callable[[str, int], Work]:
    """Return what the clients do: change schedules of other names, as fast as that goes."""

    def for_client(name: str, seed: int) -> Work:
        def work(dispatcher: Dispatcher, ledger: Ledger) -> None:
            rng = random.Random(seed)
            for _ in count():
                if is_over():
                    return
                with contextlib.suppress(ScheduleExists, ScheduleNotFound, ScheduleChanged):
                    change(
                        dispatcher, rng, f"{'shared' if rng.random() < 0.5 else name} {rng.randrange(NAMES)}"
                    )
                time.sleep(rng.uniform(0, 0.1))

        return work

    return for_client


def change(dispatcher: Dispatcher, rng: random.Random, name: str) -> None:
    schedules = dispatcher.schedules
    trigger = rng.choice([Every(1), Cron(EVERY_SECOND, seconds=True), Cron("0 3 * * *")])
    task = "schedule_tasks:tick"
    match rng.randrange(7):
        case 0 | 1:
            schedules.add(name, task, trigger, "ticks", args=(name,), replace=rng.random() < 0.5)
        case 2:
            schedules.update(name, trigger=trigger)
        case 3:
            schedules.update(name, priority=rng.randrange(5))
        case 4:
            schedules.deactivate(name)
        case 5:
            schedules.activate(name)
        case 6:
            schedules.remove(name)


def read(project: Project, diary: Diary) -> None:
    """Read the histories off; no node is alive. See `Watch._note_claims` for the empty commit."""
    with project.store() as store:
        store._env.begin(write=True).abort()
        diary.read(store)


def run_on(project: Project, names: list[str]) -> int:
    """Have a node fire all that was missed and stop; return up to when that was."""
    until = time.time_ns() // 1000
    node = project.start()
    schedules = project.dispatcher().schedules
    for name in names:

        def has_fired(name: str = name) -> bool:
            last = schedules.get(name).last_at
            return last is not None and to_micros(last) > until

        eventually(has_fired, 60)
        with contextlib.suppress(JobschedError):
            schedules.deactivate(name)
    for info in schedules.list():
        with contextlib.suppress(JobschedError):
            schedules.deactivate(info.name)
    eventually(project.is_settled, 120)
    node.terminate()
    node.wait(60)
    return until


def judged(
    torture: Torture, project: Project, diary: Diary, firsts: dict[str, int], until: int
) -> dict[str, Figure]:
    """Note as failures what must not be."""
    uneven, too_early = [], []
    for name in diary.records:
        too_early += early(name, diary.of(name))
        if name in firsts:
            schedule = diary.schedules[name].schedule
            uneven += uncovered(schedule, diary.of(name), firsts[name], until)
    jobs = FiredJobs(project)
    torture.check(jobs.states.keys() <= ENDS, f"fired jobs are {dict(jobs.states)}")
    return {
        "fired": jobs.states,
        **torture.check_none(
            uneven_histories=uneven,
            early_firings=too_early,
            stray_jobs=list(jobs.strays(diary, firsts)),
            records_that_changed=diary.changed,
            damaged_jobs=range(jobs.damaged),
        ),
    }

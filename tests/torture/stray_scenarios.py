"""What jobs have started does not outlive the node, however it ends and however they hide it."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from history import read_store
from nodes import Node, Project, eventually
from scenario import Figure, Torture, quantiles, scenario
from strays import Stray, bred, crew, seconds_until

from jobsched.job import State

GONE_LIMIT_S = 2.0
GRACE_S = 0.3
OVER_LIMIT_S = 1.0  # over the grace
WORKERS = 8
DEATHS = ("node", "node and preloader", "node, then preloader")
BREEDS = ("background", "own-session", "forked", "double-forked", "daemonised")
WITHOUT_MARK = "no-environment"
"""Found by its preloader alone: nobody knows it any more when that was killed too."""
STUCK = ("holding the lock", "computing", "sleeping")


@contextmanager
def project_of(torture: Torture) -> Iterator[Project]:
    """Give a project, and leave nothing of what its jobs start, whatever was found to be wrong."""
    project = torture.project()
    project.configure({"mail": {}}, workers=WORKERS, tasks=["tasks", "kill_tasks"])
    try:
        yield project
    finally:
        for node in project.nodes:
            node.kill()
        for stray in bred(project):
            stray.kill()


@scenario("no-survivors", quick={"rounds": 3}, full={"rounds": 60})
def no_survivors(torture: Torture, rounds: int) -> dict[str, Figure]:
    """kill -9 of node and preloader while jobs start daemons: nothing of theirs is alive 2 s later."""
    with project_of(torture) as project:
        return survive(torture, project, rounds)


def survive(torture: Torture, project: Project, rounds: int) -> dict[str, Figure]:
    deaths: Counter[str] = Counter()
    gone_s: dict[str, list[float]] = {death: [] for death in DEATHS}
    left_to_the_next = 0
    node = project.start()
    for number in range(rounds):
        death = DEATHS[number % len(DEATHS)]
        deaths[death] += 1
        if not node.is_alive:
            node = project.start()
        kinds = BREEDS if "preloader" in death else (*BREEDS, WITHOUT_MARK)
        labels = breed(torture, project, number, kinds)
        wanted = torture.rng.choice((1, len(labels)))  # all of them, or in the midst of it
        eventually(lambda labels=labels, wanted=wanted: len(of(project, labels)) >= wanted)
        condemned = crew(node)
        kill(torture, node, death)
        project.open(f"gate-{number}")
        if death != "node":
            left_to_the_next += len(alive(project, []))
            node = project.start()
        seconds = seconds_until(
            lambda death=death, condemned=condemned: (
                not alive(project, condemned) and (death != "node" or not project.left_behind())
            ),
            torture.limit_s(GONE_LIMIT_S),
        )
        if torture.check(seconds is not None, f"2 s after {death}: {alive(project, condemned)} are alive"):
            gone_s[death].append(seconds)
        torture.progress(f"no-survivors: {number + 1} of {rounds} rounds")
    node.kill()
    torture.check(project.run_until_idle() == 0, "the jobs could not all be done")
    torture.check(not alive(project, []), f"after the last stop {alive(project, [])} are alive")
    return {
        "deaths": deaths,
        "bred": len(bred(project)),
        "left_to_the_next_start": left_to_the_next,
        "gone_within_s": {death: round(max(seconds), 3) for death, seconds in gone_s.items() if seconds},
        **torture.check_none(
            not_completed=[job for job in read_store(project).values() if job.state is not State.COMPLETED]
        ),
    }


def breed(torture: Torture, project: Project, number: int, kinds: tuple[str, ...]) -> list[str]:
    """Dispatch a job for each kind of process that tries to get away; return their labels."""
    dispatcher = project.dispatcher()
    labels = [f"{number}-{kind}" for kind in kinds]
    jobs = [
        dispatcher.prepare(
            "kill_tasks:breed",
            "mail",
            args=(label, kind, f"gate-{number}"),
            kwargs={"stays": torture.rng.random() < 0.5},
        )
        for label, kind in zip(labels, kinds, strict=True)
    ]
    torture.rng.shuffle(jobs)
    dispatcher.dispatch_many(jobs)
    return labels


def kill(torture: Torture, node: Node, death: str) -> None:
    """Kill the node, and in some deaths its preloader too: at once, or in the midst of its sweep."""
    preloader = node.preloader()
    assert preloader is not None
    if death == "node and preloader":
        preloader.suspend()
    node.kill()
    if death == "node, then preloader":
        time.sleep(torture.rng.uniform(0, 0.01))
    if death != "node" and preloader.is_running():
        preloader.kill()


def of(project: Project, labels: list[str]) -> list[Stray]:
    return [stray for stray in bred(project) if stray.label in labels]


def alive(project: Project, others: list[Stray]) -> list[Stray]:
    return [stray for stray in (*bred(project), *others) if stray.is_alive]


@scenario("stuck-and-daemons", quick={"rounds": 2}, full={"rounds": 60})
def stuck_and_daemons(torture: Torture, rounds: int) -> dict[str, Figure]:
    """Stop with a job stuck in C code and daemons about: out in grace + 1 s, uncharged, none left."""
    with project_of(torture) as project:
        return stop_stuck(torture, project, rounds)


def stop_stuck(torture: Torture, project: Project, rounds: int) -> dict[str, Figure]:
    stop_s: list[float] = []
    for number in range(rounds):
        node = project.start("--grace", f"{GRACE_S}s")
        labels = breed(torture, project, number, (*BREEDS, WITHOUT_MARK))
        stuck = project.dispatcher().dispatch(
            "kill_tasks:stuck_in_c", "mail", args=(f"{number}-stuck", STUCK[number % len(STUCK)])
        )
        eventually(lambda labels=labels: len(of(project, labels)) == len(labels))
        eventually(lambda number=number: project.started(f"{number}-stuck"))
        if torture.rng.random() < 0.5:
            kill_a_breeder(torture, project, labels, f"{number}-stuck")
        project.open(f"gate-{number}")
        began = time.monotonic()
        node.terminate()
        code = node.wait()
        stop_s.append(time.monotonic() - began)
        torture.check(code in (0, 3), f"exit code {code}: {node.end_of_log}")
        torture.check(
            seconds_until(
                lambda: not (alive(project, []) or project.left_behind()), torture.limit_s(GONE_LIMIT_S)
            )
            is not None,
            f"2 s after a stop {alive(project, [])} and {project.left_behind()} are alive",
        )
        status = project.status(stuck.id)
        torture.check(
            (status.state, status.attempt, status.crashes) == (State.PENDING, 0, 0),
            f"the stuck job is {status.state}, attempt {status.attempt}, crashes {status.crashes}",
        )
        torture.check(stuck.cancel(), "the stuck job could not be cancelled")
        torture.progress(f"stuck-and-daemons: {number + 1} of {rounds} rounds")
    torture.check_in_time(max(stop_s) - GRACE_S, OVER_LIMIT_S, "a stop after the grace")
    torture.check(project.run_until_idle() == 0, "the jobs could not all be done")
    states = Counter(str(job.state) for job in read_store(project).values())
    torture.check(states == {"completed": rounds * (len(BREEDS) + 1), "cancelled": rounds}, f"{states}")
    return {"stops": rounds, "stop_s": quantiles(stop_s), "bred": len(bred(project)), "jobs": states}


def kill_a_breeder(torture: Torture, project: Project, labels: list[str], spared: str) -> None:
    """Kill the worker of a job that has started a process: that one goes with it.

    Not the worker that has gone on to the job `spared`.
    """
    label = torture.rng.choice(labels)
    pid = project.started(label)[0].pid
    worker = Stray.seen("worker", pid)
    if pid in {run.pid for run in project.started(spared)} or worker is None or not worker.kill():
        return
    stray = of(project, [label])[0]
    seconds = seconds_until(lambda: not stray.is_alive, torture.limit_s(GONE_LIMIT_S))
    torture.check(seconds is not None, f"2 s after its worker {stray} is alive")

"""kill -9 of the node: what was accepted is done, in order, and never twice at the same time."""

import time
from typing import NamedTuple

import pytest
from nodes import Project, eventually, is_running, scaled

from jobsched.job import State

LANES = {"quick": {"max_workers": 1}, "slow": {"max_workers": 1}}
KILLS = 3


@pytest.fixture
def busy(project):
    """A project with a lane for short jobs and one for long ones."""
    project.configure(LANES, workers=2)
    return project


class Aftermath(NamedTuple):
    """What is left of a project whose node was killed again and again, in the end by its last job."""

    project: Project
    labels: list[str]
    ids: list[str]
    slow: str
    seen_done: dict[str, int]
    """By label, the monotonic time at which a job was first seen to be completed, nodes being dead."""


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("aftermath"))
    project.configure(LANES, workers=2)
    try:
        yield wreck(project, scaled(5000))
    finally:
        project.close()


def wreck(project, count):
    dispatcher = project.dispatcher()
    labels = [f"{n:05}" for n in range(count)]
    jobs = dispatcher.dispatch_many(
        dispatcher.prepare("tasks:alone", "quick", args=(label,)) for label in labels
    )
    ids = [job.id for job in jobs]
    slow = dispatcher.dispatch("tasks:until", "slow", args=("slow", "gate"))
    seen_done: dict[str, int] = {}
    for kill in range(1, KILLS + 1):
        node = project.start()
        eventually(lambda kill=kill: project.count(State.COMPLETED) > kill * count // (KILLS + 2))
        eventually(lambda kill=kill: len(project.started("slow")) == kill)
        node.kill()
        for label, state in zip(labels, project.states(ids), strict=True):
            if state == "completed":
                seen_done.setdefault(label, time.monotonic_ns())
    project.open("gate")
    assert project.run_until_idle() == 0
    return Aftermath(project, labels, ids, slow.id, seen_done)


def test_killed_nodes_lose_no_job(aftermath):
    assert set(aftermath.project.states([*aftermath.ids, aftermath.slow])) == {"completed"}
    assert {run.label for run in aftermath.project.runs()} == {*aftermath.labels, "slow"}


def test_what_was_completed_when_the_node_was_killed_never_runs_again(aftermath):
    seen_done = aftermath.seen_done
    assert len(seen_done) > len(aftermath.labels) * KILLS // (KILLS + 2)
    assert [run for run in aftermath.project.runs() if run.start > seen_done.get(run.label, run.start)] == []


def test_a_killed_node_repeats_little_more_than_what_ran(aftermath):
    """What was handed out ahead may have ended without its outcome being on disk."""
    runs = aftermath.project.runs_by_label()
    assert len(runs["slow"]) == KILLS + 1
    assert sum(len(of_label) - 1 for of_label in runs.values()) <= KILLS * (1 + 256)


def test_no_two_runs_of_a_job_overlap_when_nodes_are_killed(aftermath):
    assert {event for event, *_ in aftermath.project.events()} == {"start", "end"}


def test_no_attempt_is_spent_on_a_killed_node(aftermath):
    assert {run.attempt for run in aftermath.project.runs()} == {1}
    statuses = [aftermath.project.status(job_id) for job_id in [*aftermath.ids, aftermath.slow]]
    assert {(status.attempt, status.crashes) for status in statuses} == {(1, 0)}
    assert statuses[-1].interruptions == KILLS


def test_the_order_of_a_category_outlasts_killed_nodes(aftermath):
    starts = [run.label for run in aftermath.project.runs() if run.label != "slow"]
    assert list(dict.fromkeys(starts)) == aftermath.labels  # by first runs
    assert list(dict.fromkeys(reversed(starts))) == aftermath.labels[::-1]  # and by last runs


def test_nothing_that_a_dead_node_started_outlives_the_next_start(busy):
    node = busy.start()
    busy.dispatcher().dispatch("tasks:grandchild", "slow", args=("parent", "gate"))
    grandchild = eventually(lambda: pid_of(busy))
    started = [grandchild, node.preloader().pid, *node.workers()]
    assert len(started) == 4
    assert all(map(is_running, started))
    node.kill()
    busy.start()
    eventually(lambda: not any(map(is_running, started)), 2)


def test_a_node_killed_together_with_its_preloader_leaves_nothing_to_the_next(busy):
    """Then nobody sweeps but the next node."""
    node = busy.start()
    job = busy.dispatcher().dispatch("tasks:grandchild", "slow", args=("parent", "gate"))
    grandchild = eventually(lambda: pid_of(busy))
    preloader = node.preloader()
    preloader.suspend()
    node.kill()
    preloader.kill()
    assert is_running(grandchild)
    busy.open("gate")
    node = busy.start()
    eventually(lambda: not is_running(grandchild), 2)
    assert node.says("that an earlier node had left")
    assert job.result(timeout=20) is None
    assert busy.status(job.id).attempt == 1


def pid_of(project):
    """Return the pid that the task `grandchild` has written, 0 before it is there whole."""
    file = project.folder / "pid-parent"
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else 0


@pytest.mark.parametrize("moment", ["socket", "preloader", "run"])
def test_a_node_killed_while_it_starts_hinders_no_other(project, moment):
    job = project.dispatcher().dispatch("tasks:mark", "mail", args=("only",))
    node = project.launch()
    reached = {
        "socket": (project.store_path / "node.sock").exists,
        "preloader": node.preloader,
        "run": project.runs,
    }
    eventually(reached[moment])
    node.kill()
    assert project.run_until_idle() == 0
    assert job.state() == "completed"

"""kill -9 of the node: what was accepted is done, in order, and never twice at the same time."""

import time

import pytest
from nodes import eventually, is_running, scaled

from jobsched.job import State


@pytest.fixture
def busy(project):
    """A project with many short jobs in one lane, and a category for long ones."""
    project.configure({"quick": {"max_workers": 1}, "slow": {"max_workers": 1}}, workers=2)
    return project


def dispatch_short(project, count):
    dispatcher = project.dispatcher()
    labels = [f"{n:05}" for n in range(count)]
    jobs = dispatcher.dispatch_many(
        dispatcher.prepare("tasks:alone", "quick", args=(label,)) for label in labels
    )
    return labels, [job.id for job in jobs]


def test_a_killed_node_loses_no_job_and_repeats_only_what_had_not_ended(busy):
    labels, ids = dispatch_short(busy, scaled(5000))
    slow = busy.dispatcher().dispatch("tasks:until", "slow", args=("slow", "gate"))
    done_at_kill: set[str] = set()
    for kill in range(1, 4):
        node = busy.start()
        eventually(lambda kill=kill: len(busy.started("slow")) == kill)
        eventually(lambda kill=kill: busy.count(State.COMPLETED) > kill * len(ids) // 5)
        node.kill()
        states = busy.states(ids)
        done_at_kill |= {label for label, state in zip(labels, states, strict=True) if state == "completed"}
        assert set(states) <= {"completed", "in_progress", "pending"}
    busy.open("gate")
    assert busy.run_until_idle() == 0
    assert set(busy.states([*ids, slow.id])) == {"completed"}
    runs = busy.runs_by_label()
    assert set(runs) == {*labels, "slow"}
    assert len(done_at_kill) > len(ids) // 5
    assert [label for label in done_at_kill if len(runs[label]) > 1] == []
    assert len(runs["slow"]) == 4


def test_no_two_runs_of_a_job_overlap_and_no_attempt_is_spent_on_a_killed_node(busy):
    labels, ids = dispatch_short(busy, scaled(1500))
    dispatcher = busy.dispatcher()
    slow = [dispatcher.dispatch("tasks:alone", "slow", args=(f"slow-{n}", 0.3)).id for n in range(3)]
    for kill in range(1, 5):
        node = busy.start()
        eventually(lambda kill=kill: len(busy.runs()) > kill * len(labels) // 6)
        node.kill()
    assert busy.run_until_idle() == 0
    assert set(busy.states([*ids, *slow])) == {"completed"}
    assert {event for event, *_ in busy.events()} == {"start", "end"}
    assert {run.attempt for run in busy.runs()} == {1}
    assert {busy.status(job).attempt for job in [*ids, *slow]} == {1}
    assert {busy.status(job).crashes for job in [*ids, *slow]} == {0}


def test_the_order_of_a_category_outlasts_killed_nodes(busy):
    labels, _ = dispatch_short(busy, scaled(1500))
    for kill in range(1, 4):
        node = busy.start()
        eventually(lambda kill=kill: len(busy.runs()) > kill * len(labels) // 5)
        node.kill()
    assert busy.run_until_idle() == 0
    starts = [run.label for run in busy.runs()]
    assert list(dict.fromkeys(starts)) == labels  # by first runs
    assert list(dict.fromkeys(reversed(starts))) == labels[::-1]  # and by last runs


def test_nothing_that_a_dead_node_started_outlives_the_next_start(busy):
    node = busy.start()
    busy.dispatcher().dispatch("tasks:grandchild", "slow", args=("parent", "gate"))
    (run,) = eventually(lambda: [run for run in busy.runs() if (busy.folder / "pid-parent").exists()])
    grandchild = int(eventually((busy.folder / "pid-parent").read_text))
    assert is_running(run.pid)
    assert is_running(grandchild)
    preloader, workers = node.preloader().pid, node.workers()
    node.kill()
    started = time.monotonic()
    busy.open("gate")
    busy.start()
    eventually(lambda: not any(map(is_running, [grandchild, preloader, *workers])), 2)
    assert time.monotonic() - started < 10


def test_a_node_killed_together_with_its_preloader_leaves_nothing_to_the_next(busy):
    """Then nobody sweeps but the next node."""
    node = busy.start()
    job = busy.dispatcher().dispatch("tasks:grandchild", "slow", args=("parent", "gate"))
    grandchild = int(eventually(lambda: (busy.folder / "pid-parent").exists() and pid_of(busy)))
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
    return (project.folder / "pid-parent").read_text().strip()


@pytest.mark.parametrize("moment", range(5))
def test_a_node_killed_while_it_starts_hinders_no_other(project, moment):
    job = project.dispatcher().dispatch("tasks:mark", "mail", args=("only",))
    node = project.launch()
    if moment:
        eventually((project.store_path / "node.sock").exists)
    if moment == 2:
        eventually(node.preloader)
    if moment > 2:
        eventually(node.workers)
    if moment == 4:
        eventually(project.runs)
    node.kill()
    assert project.run_until_idle() == 0
    assert job.state() == "completed"

"""What the death of workers and of the preloader costs: the job that ran, and nothing else."""

import os
import signal

import pytest
from nodes import eventually, is_running, scaled

from jobsched.job import State


def kill(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lanes(project):
    """A category for the victims and one for the others, a worker each."""
    project.configure({"victims": {"max_workers": 1}, "others": {"max_workers": 1}}, workers=2)
    return project


def test_a_killed_worker_is_replaced_and_its_job_alone_runs_again(lanes):
    node = lanes.start()
    job = lanes.dispatcher().dispatch("tasks:until", "victims", args=("victim", "gate"))
    others = lanes.dispatch_marks("others", [f"other-{n}" for n in range(300)], 0.001)
    (first,) = eventually(lambda: lanes.started("victim"))
    kill(first.pid)
    eventually(lambda: len(lanes.started("victim")) == 2)
    lanes.open("gate")
    assert job.result(timeout=20) == "victim"
    eventually(lambda: set(lanes.states(others)) == {"completed"})
    runs = lanes.runs_by_label()
    assert [len(runs[f"other-{n}"]) for n in range(300)] == [1] * 300
    assert len({run.pid for label, of_label in runs.items() if label != "victim" for run in of_label}) == 1
    assert len({run.pid for run in runs["victim"]}) == 2
    status = lanes.status(job.id)
    assert (status.attempt, status.crashes) == (1, 1)
    assert node.says("killed by SIGKILL")


def test_jobs_handed_ahead_of_a_dead_worker_run_once_and_in_order(lanes):
    """Short jobs are handed out ahead, so some wait at the worker whenever it is killed."""
    lanes.start()
    labels = [f"{n:05}" for n in range(scaled(3000))]
    ids = lanes.dispatch_marks("victims", labels)
    kills = 0
    while lanes.count(State.COMPLETED) < len(labels):
        if kills < 5:
            runs = lanes.runs()
            reached = len(runs) > (kills + 1) * len(labels) // 7
            if reached and is_running(runs[-1].pid):
                kill(runs[-1].pid)
                kills += 1
    assert kills
    assert set(lanes.states(ids)) == {"completed"}
    runs = lanes.runs_by_label()
    repeated = [label for label in labels if len(runs[label]) != 1]
    assert len(repeated) <= kills
    assert all(len(runs[label]) == 2 and runs[label][0].pid != runs[label][1].pid for label in repeated)
    starts = [run.label for run in lanes.runs()]
    assert list(dict.fromkeys(starts)) == labels


def test_all_workers_killed_at_once_again_and_again_cost_no_node(project):
    """Their ends arrive together, in any order, with what they had sent before."""
    project.configure({"mail": {}, "reports": {}}, workers=6)
    node = project.start()
    kills = scaled(6)
    labels = [f"{n:05}" for n in range(3000 * kills)]
    ids = project.dispatch_marks("mail", labels)
    for _ in range(kills):
        before = project.count(State.COMPLETED)
        eventually(lambda before=before: project.count(State.COMPLETED) > before or not node.is_alive, 30)
        kill(*(pid for pid in node.workers() if is_running(pid)))
        assert node.is_alive, node.log.read_text()[-3000:]
    eventually(lambda: project.count(State.COMPLETED) == len(ids) or not node.is_alive, 30)
    assert node.is_alive, node.log.read_text()[-3000:]
    assert all(len(runs) <= 1 + kills for runs in project.runs_by_label().values())


def test_a_worker_that_dies_while_its_job_dispatches_leaves_the_node_alive(lanes):
    node = lanes.start()
    job = lanes.dispatcher().dispatch("tasks:flood", "victims", args=("flood", "others"))
    eventually(lambda: lanes.states([job.id]) == ["quarantined"] or not node.is_alive)
    assert node.is_alive, node.log.read_text()[-3000:]
    eventually(lambda: lanes.count(State.PENDING) + lanes.count(State.IN_PROGRESS) == 0)
    assert lanes.dispatcher().dispatch("tasks:mark", "others", args=("after",)).result(10) == "after"


def test_a_job_that_leaves_its_worker_with_exit_code_0_has_crashed(lanes):
    lanes.start()
    job = lanes.dispatcher().dispatch("tasks:leave", "victims", args=("leaver", 0))
    eventually(lambda: lanes.states([job.id]) == ["quarantined"])
    assert len(lanes.started("leaver")) == 3
    assert lanes.status(job.id).crashes == 3


def test_a_job_that_always_kills_its_worker_is_quarantined_and_the_others_go_on(lanes):
    lanes.start()
    dispatcher = lanes.dispatcher()
    killer = dispatcher.dispatch("tasks:kill_worker", "victims", args=("killer",))
    behind = dispatcher.dispatch("tasks:mark", "victims", args=("behind",))
    others = lanes.dispatch_marks("others", [f"other-{n}" for n in range(200)], 0.002)
    assert behind.result(timeout=20) == "behind"
    eventually(lambda: set(lanes.states(others)) == {"completed"})
    assert killer.state() == "quarantined"
    runs = lanes.runs()
    deaths = [run.start for run in runs if run.label == "killer"]
    assert len(deaths) == 3
    assert [run.label for run in runs if "other" not in run.label] == ["killer"] * 3 + ["behind"]
    assert sum(deaths[0] < run.start < deaths[2] for run in runs if "other" in run.label) > 10


def test_a_killed_preloader_is_replaced_and_nobody_is_charged(lanes):
    node = lanes.start()
    dispatcher = lanes.dispatcher()
    job = dispatcher.dispatch("tasks:until", "victims", args=("victim", "gate"))
    others = lanes.dispatch_marks("others", [f"{n:04}" for n in range(2000)])
    (first,) = eventually(lambda: lanes.started("victim"))
    eventually(lambda: lanes.count(State.COMPLETED))
    kill(node.preloader().pid)
    eventually(lambda: len(lanes.started("victim")) == 2)
    assert not is_running(first.pid)
    lanes.open("gate")
    assert job.result(timeout=20) == "victim"
    eventually(lambda: set(lanes.states(others)) == {"completed"})
    assert node.is_alive
    status = lanes.status(job.id)
    assert (status.attempt, status.crashes, status.interruptions) == (1, 0, 1)
    runs = lanes.runs_by_label()
    assert sum(len(runs[f"{n:04}"]) for n in range(2000)) <= 2001
    assert all(run.attempt == 1 for run in lanes.runs())


def test_a_preloader_killed_under_load_costs_no_node(project):
    project.configure({"mail": {}, "reports": {}}, workers=6)
    node = project.start()
    kills = scaled(3)
    ids = project.dispatch_marks("mail", [f"{n:05}" for n in range(4000 * kills)])
    for _ in range(kills):
        before = project.count(State.COMPLETED)
        eventually(lambda before=before: project.count(State.COMPLETED) > before or not node.is_alive, 30)
        assert node.is_alive, node.log.read_text()[-3000:]
        kill(node.preloader().pid)
    eventually(lambda: project.count(State.COMPLETED) == len(ids) or not node.is_alive, 30)
    assert node.is_alive, node.log.read_text()[-3000:]
    runs = project.runs()
    assert len(runs) <= len(ids) + 6 * kills
    assert all(run.attempt == 1 for run in runs)

"""Jobs from journals that start before their claims are committed, on nodes whose commits wait or fail."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest
from nodes import Node, eventually

from jobsched.job import State
from jobsched.job_id import new_id
from jobsched.node import JOBS_PUT_BACK
from jobsched.store.place import JOURNALS


@pytest.fixture
def scripted(project):
    """A function that starts a node by a script, and returns it with a dispatcher that has a journal."""

    def start(script, **environment):
        path = Path(__file__).with_name(script)
        command = [sys.executable, str(path), "-c", str(project.config), "run"]
        node = Node(command, project.folder, project.environment | environment)
        project.nodes.append(node)
        dispatcher = project.dispatcher()

        def has_journal():
            dispatcher.dispatch("tasks:mark", "reports", 3600, args=("later",))  # that starts no job
            time.sleep(0.01)
            return list((project.store_path / JOURNALS).glob("*.journal"))

        eventually(project.answers)
        eventually(has_journal)
        eventually(lambda: len(node.workers()) == 2)
        return node, dispatcher

    return start


@pytest.fixture
def slow(project, scripted):
    """A function that starts a node whose commits wait for a file, likewise."""

    def start(awaited, **environment):
        return scripted("slow_commit_node.py", AWAITED=str(project.folder / awaited), **environment)

    return start


def runs(project, label):
    """Return whether each run of a job was let end, and make sure that none overlapped."""
    assert not [event for event in project.events() if event[0] == "overlap"]
    return [run.end is not None for run in project.started(label)]


def test_a_job_runs_before_its_claim_is_committed(project, slow):
    _, dispatcher = slow("ran")
    job = dispatcher.dispatch("tasks:open_gate", "mail", args=("ran",))
    assert job.result(timeout=20) is None
    status = project.status(job.id)
    assert (status.state, status.attempt) == (State.COMPLETED, 1)


def test_a_job_whose_claim_cannot_be_committed_is_killed_and_claimed_again(project, slow):
    node, dispatcher = slow("runs", FAILS="1")
    job = dispatcher.dispatch("tasks:until", "mail", args=("a", "gate"))
    eventually(lambda: len(project.started("a")) == 2)
    project.open("gate")
    assert job.result(timeout=20) == "a"
    assert runs(project, "a") == [False, True]
    status = project.status(job.id)
    assert (status.attempt, status.crashes, status.interruptions) == (1, 0, 0)
    assert node.says("the disk has failed")


def test_a_job_that_ends_before_its_claim_cannot_be_committed_runs_again(project, slow):
    _, dispatcher = slow("ran", FAILS="1")
    job = dispatcher.dispatch("tasks:mark", "mail", args=("a",))
    eventually(lambda: runs(project, "a") == [True])
    project.open("ran")
    assert job.result(timeout=20) == "a"  # asked for while the store fails
    assert runs(project, "a") == [True, True]
    status = project.status(job.id)
    assert (status.attempt, status.crashes, status.interruptions) == (1, 0, 0)


@pytest.mark.parametrize("whose", ["worker", "preloader"])
@pytest.mark.parametrize("fails", ["", "1"], ids=["committed", "not committed"])
def test_a_death_before_the_commit_is_charged_as_one_behind_it(project, slow, whose, fails):
    node, dispatcher = slow("dead", FAILS=fails)
    job = dispatcher.dispatch("tasks:until", "mail", args=("a", "gate"))
    [run] = eventually(lambda: project.started("a"))
    os.kill(run.pid if whose == "worker" else node.preloader().pid, signal.SIGKILL)
    project.open("dead")
    eventually(lambda: len(project.started("a")) == 2)
    project.open("gate")
    assert job.result(timeout=20) == "a"
    assert runs(project, "a") == [False, True]
    status = project.status(job.id)
    charged = (int(whose == "worker"), int(whose == "preloader"))
    assert (status.crashes, status.interruptions) == ((0, 0) if fails else charged)
    assert status.attempt == 1


@pytest.mark.parametrize("fails", ["", "1"], ids=["committed", "not committed"])
def test_a_stop_before_the_commit_lets_the_job_end_or_leaves_it_to_the_next_node(project, slow, fails):
    node, dispatcher = slow("stopped", FAILS=fails)
    job = dispatcher.dispatch("tasks:until", "mail", args=("a", "gate"))
    eventually(lambda: project.started("a"))
    node.terminate()
    project.open("stopped")
    if not fails:
        project.open("gate")
    assert node.wait(20) == (JOBS_PUT_BACK if fails else 0)
    status = project.status(job.id)
    assert (status.state, status.interruptions) == (State.PENDING if fails else State.COMPLETED, 0)


def test_a_node_killed_before_the_commit_leaves_the_job_to_the_next_one(project, slow):
    node, dispatcher = slow("never")
    job = dispatcher.dispatch("tasks:until", "mail", args=("a", "gate"))
    eventually(lambda: project.started("a"))
    node.kill()
    project.start()
    eventually(lambda: len(project.started("a")) == 2)
    project.open("gate")
    assert job.result(timeout=20) == "a"
    assert runs(project, "a") == [False, True]
    assert project.status(job.id).state is State.COMPLETED


def test_a_job_that_has_run_is_not_begun_again_by_a_dispatch_of_the_same_id(project, slow):
    _, dispatcher = slow(".")
    job_id = str(uuid.UUID(bytes=new_id()))
    for _ in range(3):
        job = dispatcher.dispatch("tasks:alone", "mail", args=("a",), id=job_id)
        assert job.result(timeout=20) is None
    assert dispatcher.dispatch("tasks:mark", "mail", args=("b",)).result(timeout=20) == "b"
    assert runs(project, "a") == [True]


def test_what_begins_is_not_recalled_in_the_same_turn(project, scripted):
    _, dispatcher = scripted("recalling_node.py")
    for label in ("a", "b", "c", "d", "e"):
        job = dispatcher.dispatch("tasks:mark", "mail", args=(label,))
        assert job.result(timeout=10) == label

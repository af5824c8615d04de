"""What the death of workers and of the preloader costs: the job that ran, and nothing else."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from nodes import eventually, is_running, scaled

from jobsched.channel import Channel
from jobsched.job import State
from jobsched.store.base import Claim
from jobsched.worker import Worker
from jobsched.worker_link import WorkerLink


def kill(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def go_on(project, node):
    """Wait until jobs have been run since, or all of them, and workers are there."""
    before = project.count(State.COMPLETED)
    eventually(lambda: project.count(State.COMPLETED) > before or project.is_settled() or not node.is_alive)
    eventually(lambda: node.workers() or not node.is_alive, 30)
    assert node.is_alive, node.end_of_log


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
    labels = [f"{n:05}" for n in range(scaled(500))]
    ids = lanes.dispatch_marks("victims", labels, 0.002)
    kills = 5
    for number in range(1, kills + 1):
        kill(eventually(lambda number=number: last_pid_after(lanes, number * len(labels) // 7)))
    eventually(lambda: set(lanes.states(ids)) == {"completed"})
    runs = lanes.runs_by_label()
    repeated = [label for label in labels if len(runs[label]) != 1]
    assert 0 < len(repeated) <= kills
    assert all(len(runs[label]) == 2 and runs[label][0].pid != runs[label][1].pid for label in repeated)
    crashes = {label: lanes.status(job_id).crashes for label, job_id in zip(labels, ids, strict=True)}
    assert [crashes[label] for label in repeated] == [1] * len(repeated)
    assert sum(crashes.values()) <= kills
    starts = [run.label for run in lanes.runs()]
    assert list(dict.fromkeys(starts)) == labels


def last_pid_after(project, count):
    """Return the worker of the last run once there were more than so many, if it is alive."""
    runs = project.runs()
    return runs[-1].pid if len(runs) > count and is_running(runs[-1].pid) else None


def test_all_workers_killed_at_once_again_and_again_cost_no_node(project):
    """Their ends arrive together, in any order, with what they had sent before. They are replaced at
    once: that many died is no crash loop.
    """
    project.configure({"mail": {}, "reports": {}}, workers=12)
    node = project.start()
    kills = scaled(4)
    labels = [f"{n:05}" for n in range(1000 * kills)]
    ids = project.dispatch_marks("mail", labels, 0.005)
    for _ in range(kills):
        go_on(project, node)
        kill(*(pid for pid in node.workers() if is_running(pid)))
    eventually(project.is_settled, 60)
    assert node.is_alive, node.end_of_log
    assert set(project.states(ids)) <= {"completed", "quarantined"}  # some ran at three of the kills
    assert all(len(runs) <= 1 + kills for runs in project.runs_by_label().values())


def test_idle_workers_killed_at_once_are_replaced_at_once(project):
    project.configure({"mail": {}}, workers=12)
    node = project.start()
    dispatcher = project.dispatcher()
    dispatcher.dispatch("tasks:mark", "mail", args=("before",)).result(10)
    kill(*eventually(lambda: len(workers := node.workers()) == 12 and workers))
    eventually(lambda: node.says("killed by SIGKILL"))
    eventually(lambda: len(node.workers()) == 12, 3)
    assert dispatcher.dispatch("tasks:mark", "mail", args=("after",)).result(3) == "after"


def test_a_job_that_dispatches_and_dies_before_the_answer_leaves_the_node_alive(lanes):
    """The node is stopped meanwhile, so it finds the request and the death at once."""
    node = lanes.start()
    dispatcher = lanes.dispatcher()
    job = dispatcher.dispatch("tasks:dispatch_and_die", "victims", args=("last-words", "others", "gate"))
    (run,) = eventually(lambda: lanes.started("last-words"))
    with node.stopped():
        lanes.open("gate")
        eventually(lambda: not is_running(run.pid))
    assert dispatcher.dispatch("tasks:mark", "others", args=("after",)).result(20) == "after"
    eventually(lambda: lanes.states([job.id]) == ["quarantined"])
    assert node.is_alive, node.end_of_log


def test_a_token_taken_just_before_a_revocation_still_runs_its_job():
    """The worker has taken the token of its first job and not yet read the job itself when the node
    takes back what waits behind it.
    """
    link = WorkerLink(1, "mail", 0.0, lambda _: None)
    jobs = [bytes((n,)) * 16 for n in range(2)]
    link.hand_out([Claim(n + 1, 1, 1, job, b"unreadable") for n, job in enumerate(jobs)], "mail", 0.0)
    reader, writer = os.pipe()
    os.write(writer, os.read(link.far_tokens, 1))
    os.close(writer)
    assert [back.job for back in link.revoke()] == jobs[1:]
    worker = os.fork()
    if worker == 0:
        Worker(Channel(link.far_end), reader, link.board, {}).run()
        os._exit(0)
    os.close(reader)
    try:
        eventually(lambda: os.waitpid(worker, os.WNOHANG)[0], 5)
        worker = None
    finally:
        if worker:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        link.let_go_of_far_ends()
        link.receive_rest()
        ended = list(link.ended())
        link.close()
    assert [outcome.job for outcome in ended] == jobs[:1]


def test_a_job_that_has_its_worker_killed_is_charged_also_when_the_end_of_others_is_untold(lanes):
    """The node is stopped by the first of three jobs, so it finds all that comes of them at once."""
    lanes.bring("stubborn_tasks")
    lanes.configure({"victims": {}}, workers=1, tasks=["tasks", "stubborn_tasks"])
    node = lanes.start()
    lanes.dispatch_marks("victims", ["short"] * 300)
    eventually(lanes.is_settled)
    jobs = lanes.dispatcher()
    three = [
        jobs.prepare("stubborn_tasks:stop_process", "victims", args=(node.pid,)),
        jobs.prepare("tasks:mark", "victims", args=("before",)),
        jobs.prepare("stubborn_tasks:write_to_all_sockets", "victims", args=("culprit",)),
    ]
    with ThreadPoolExecutor(1) as pool:
        try:
            dispatched = pool.submit(jobs.dispatch_many, three)
            eventually(lambda: lanes.started("culprit"))
        finally:
            node.process.send_signal(signal.SIGCONT)
        ids = [job.id for job in dispatched.result(20)]
    eventually(lambda: lanes.states(ids) == ["completed", "completed", "quarantined"])
    assert (lanes.status(ids[2]).crashes, lanes.status(ids[2]).interruptions) == (3, 0)


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
    kills = scaled(2)
    ids = project.dispatch_marks("mail", [f"{n:05}" for n in range(1000 * kills)], 0.002)
    for _ in range(kills):
        go_on(project, node)
        kill(node.preloader().pid)
    eventually(lambda: project.count(State.COMPLETED) == len(ids) or not node.is_alive, 30)
    assert node.is_alive, node.end_of_log
    runs = project.runs()
    assert len(runs) <= len(ids) + 6 * kills
    assert all(run.attempt == 1 for run in runs)

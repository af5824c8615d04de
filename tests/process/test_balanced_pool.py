"""The worker pool under load: every job once, in order, within the budget, where the work is."""

import time

import pytest
from nodes import eventually, most_at_once, scaled

from jobsched.job import State

LANES = ("a", "b", "c", "d", "e")


def labels_of(category, count):
    return [f"{category}-{n:05}" for n in range(count)]


def all_runs_of(project, category):
    return [run for run in project.runs() if run.label.startswith(f"{category}-")]


def check_decisions(project, budget, minima):
    """No recorded decision gives out more than the budget, or less than a minimum."""
    with project.store() as store:
        decisions = store.decisions(10_000)
    assert decisions
    for decision in decisions:
        assert decision.budget == budget
        assert sum(decision.after.values()) <= budget
        assert all(decision.after[name] >= least for name, least in minima.items())


def test_every_job_of_five_lanes_runs_once_in_the_order_of_its_dispatch(project):
    minima = {"a": 1, "c": 1}
    categories = {name: {"max_workers": 1, "min_workers": minima.get(name, 0)} for name in LANES}
    project.configure(categories, workers=5)
    count = scaled(20_000) // len(LANES)
    for category in LANES:
        project.dispatch_marks(category, labels_of(category, count // 2))
    node = project.launch("--until-idle")
    for category in LANES:  # the rest comes while they run
        project.dispatch_marks(category, labels_of(category, count)[count // 2 :])
    assert node.wait() == 0
    assert project.count(State.COMPLETED) == count * len(LANES)
    for category in LANES:
        runs = all_runs_of(project, category)
        assert [run.label for run in runs] == labels_of(category, count)
        assert most_at_once(runs) == 1
    check_decisions(project, 5, minima)


def test_several_workers_of_a_category_share_its_jobs_within_its_maximum(project):
    categories = {"wide": {"max_workers": 3, "priority": 3}, "narrow": {"max_workers": 2, "min_workers": 1}}
    project.configure(categories, workers=4)
    count = scaled(150)
    for category in categories:
        project.dispatch_marks(category, labels_of(category, count), 0.005)
    assert project.run_until_idle() == 0
    for category, settings in categories.items():
        runs = all_runs_of(project, category)
        assert sorted(run.label for run in runs) == labels_of(category, count)
        assert 1 < most_at_once(runs) <= settings["max_workers"]
    assert most_at_once(project.runs()) <= 4
    check_decisions(project, 4, {"narrow": 1})


def test_a_category_that_gets_work_gets_a_worker_at_once(project):
    """All are at home and busy elsewhere, so one has to leave after its job."""
    project.configure({"busy": {"priority": 100}, "other": {}}, workers=3, balancer_every="30s")
    project.dispatch_marks("busy", labels_of("busy", 3000), 0.02)
    project.start()
    eventually(lambda: len(project.runs()) > 12)
    began = time.monotonic()
    job = project.dispatcher().dispatch("tasks:mark", "other", args=("other-1",))
    assert job.result(timeout=5) == "other-1"
    assert time.monotonic() - began < 1


def test_idle_workers_are_lent_and_minimum_reserves_are_not(project):
    """No decision is due for half a minute: what moves is lent."""
    categories = {"idle": {"min_workers": 2, "priority": 100}, "full": {}}
    project.configure(categories, workers=5, balancer_every="30s")
    project.start()
    dispatcher = project.dispatcher()
    for n in range(2):  # both categories have had their workers' first look
        dispatcher.dispatch("tasks:mark", "full", args=(f"full-first-{n}",)).result(10)
    project.dispatch_marks("full", labels_of("full", 60), 0.05)
    eventually(lambda: project.count(State.COMPLETED) == 62)
    assert most_at_once(all_runs_of(project, "full")) == 3
    began = time.monotonic()
    dispatcher.dispatch("tasks:mark", "idle", args=("idle-1",)).result(5)
    assert time.monotonic() - began < 1


def test_lending_keeps_to_the_borrowers_maximum(project):
    categories = {"idle": {"priority": 100}, "full": {"max_workers": 2}}
    project.configure(categories, workers=5, balancer_every="30s")
    project.start()
    project.dispatch_marks("full", labels_of("full", 60), 0.02)
    eventually(lambda: project.count(State.COMPLETED) == 60)
    assert most_at_once(all_runs_of(project, "full")) == 2


def test_a_paused_category_starts_nothing_until_resumed_and_stays_paused_over_a_restart(project):
    project.configure({"mail": {}, "reports": {}}, workers=2)
    dispatcher = project.dispatcher()
    node = project.start()
    dispatcher.pause("mail")
    project.dispatch_marks("mail", labels_of("mail", 20))
    assert dispatcher.dispatch("tasks:mark", "reports", args=("reports-1",)).result(10) == "reports-1"
    node.kill()
    project.start()
    assert dispatcher.dispatch("tasks:mark", "reports", args=("reports-2",)).result(10) == "reports-2"
    assert all_runs_of(project, "mail") == []
    assert project.count(State.PENDING) == 20
    dispatcher.resume("mail")
    eventually(lambda: project.count(State.COMPLETED) == 22)
    assert len(all_runs_of(project, "mail")) == 20


@pytest.mark.parametrize("seconds", [0.0, 0.003])
def test_no_job_starts_once_pause_has_returned(project, seconds):
    """None of those that were handed to the worker ahead; but for the one that it had just taken."""
    project.configure({"mail": {}}, workers=1)
    project.dispatch_marks("mail", labels_of("mail", 4000 if not seconds else 400), seconds)
    project.start()
    eventually(lambda: project.count(State.COMPLETED) > 100)
    dispatcher = project.dispatcher()
    dispatcher.pause("mail")
    paused = time.monotonic_ns()
    eventually(lambda: project.count(State.IN_PROGRESS) == 0)
    assert project.count(State.PENDING) > 0
    assert len([run for run in project.runs() if run.start > paused]) <= 1


def test_modules_that_start_a_thread_are_run_by_spawned_workers(project):
    tasks = project.folder / "tasks.py"
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    tasks.write_text(thread + tasks.read_text())
    project.dispatch_marks("mail", labels_of("mail", 50))
    assert project.run_until_idle() == 0
    assert len(all_runs_of(project, "mail")) == 50
    assert project.left_behind() == []


def test_a_file_that_a_task_module_opened_at_import_is_open_in_the_workers(project):
    tasks = project.folder / "tasks.py"
    opened = (
        "\nHELD = (HERE / 'held').open('a', buffering=1)\n"
        "@task\ndef write_held(text: str) -> None:\n    HELD.write(text)\n"
    )
    tasks.write_text(tasks.read_text() + opened)
    job = project.dispatcher().dispatch("tasks:write_held", "mail", args=("line\n",))
    assert project.run_until_idle() == 0
    assert job.state() == "completed"
    assert (project.folder / "held").read_text() == "line\n"

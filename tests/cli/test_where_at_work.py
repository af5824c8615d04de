"""Conditions against real jobs that a real node has run."""

from contextlib import closing

import pytest
from waiting import wait_for

from jobsched.job_id import parse_id
from jobsched.store.lmdb import open_store

TASKS = """
import os, signal, time

@task(category="reports")
def nap(seconds: float, password: str = "") -> None:
    time.sleep(seconds)

@task(category="mail")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def napping(project):
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + TASKS)
    return project


@pytest.fixture
def node(napping):
    """A node that runs meanwhile."""
    with napping.node() as running:
        yield running


def state(project, job):
    return project("show", job, "--json").json["state"]


def test_failures_are_found_shown_and_retried(napping, node):
    first = napping.dispatch("tasks:fail", "--arg", '"no post office"', "--max-retries", "0")
    other = napping.dispatch("tasks:fail", "--arg", '"no stamps"', "--max-retries", "0")
    wait_for(lambda: {state(napping, first), state(napping, other)} == {"failed"})
    found = napping("jobs", "--where", "state=failed, error~POST OFFICE", "--json").json
    assert [job["id"] for job in found] == [first]
    (attempt,) = napping("show", first, "--json").json["attempts"]
    assert (attempt["attempt"], attempt["state"]) == (1, "failed")
    assert attempt["worker"] < 1000
    assert "no post office" in attempt["error"]
    assert "ValueError" in attempt["traceback"]
    assert napping("retry", "--where", "error~stamps").out == "retried 1 job\n"
    wait_for(lambda: len(napping("show", other, "--json").json["attempts"]) == 2)
    assert len(napping("show", first, "--json").json["attempts"]) == 1


def test_cancel_waits_and_says_how_a_run_ended(napping, node):
    job = napping.dispatch("tasks:nap", "--arg", "60")
    wait_for(lambda: state(napping, job) == "in_progress")
    assert napping("delete", job, code=1).out == f"{job}  in_progress\n"
    (row,) = napping("cancel", job, "--wait", "--timeout", "30s", "--json").json
    assert (row["id"], row["state"]) == (job, "cancelled")
    assert "exception" in row["error"]


def test_running_jobs_that_conditions_mean_are_waited_for(napping, node):
    jobs = [napping.dispatch("tasks:nap", "--arg", "60") for _ in range(2)]
    wait_for(lambda: {state(napping, job) for job in jobs} == {"in_progress"})
    found = napping("cancel", "--where", "task=*:nap", "--wait", "--timeout", "30s", "--json").json
    assert (found["matched"], found["changed"]) == (2, 2)
    assert {row["id"] for row in found["ended"]} == set(jobs)
    assert {row["state"] for row in found["ended"]} == {"cancelled"}


def test_a_crash_is_shown(napping, node):
    job = napping.dispatch("tasks:die")
    wait_for(lambda: state(napping, job) == "quarantined")
    found = napping("show", job, "--json").json
    assert found["crash"]["signal"] == "SIGKILL"
    assert found["crash"]["peak_kib"] > 0
    assert len(found["attempts"]) == 3
    assert "SIGKILL, peak memory" in napping("show", job).out


def test_prune_works_beside_a_node(napping, node):
    jobs = [napping.dispatch("tasks:send", "--arg", '"a"') for _ in range(3)]
    wait_for(lambda: {state(napping, job) for job in jobs} == {"completed"})
    assert napping("prune", "--older-than", "0s").out == "deleted 3 jobs (3 completed)\n"
    assert node.poll() is None


def test_why_a_job_is_parked_is_shown(napping, node):
    known = napping.dispatch("tasks:send", "--arg", '"a"')
    wait_for(lambda: state(napping, known) == "completed")  # the node knows its tasks by then
    assert "unknown task" in napping("dispatch", "no:such", "--category", "mail", code=2).err
    job = napping.dispatch("no:such", "--category", "mail", "--allow-unknown")
    wait_for(lambda: state(napping, job) == "parked")
    assert napping("show", job, "--json").json["parked_for"] == "no configured module has its task"
    assert napping("cancel", "--where", "state=parked").out == "cancelled 1 job\n"


def test_secrets_among_the_arguments_are_hidden(napping):
    job = napping.dispatch("tasks:nap", "--payload", '{"seconds": 1, "password": "hush"}')
    for words in ([], ["--json"]):
        shown = napping("show", job, *words).out
        assert "hush" not in shown
        assert "***" in shown


def test_state_and_category_go_with_conditions(project):
    job = project.dispatch("tasks:send", "--arg", '"a"')
    project.dispatch("tasks:send", "--arg", '"a"', "--delay", "1h")

    def ids(*words):
        return [found["id"] for found in project("jobs", "--json", *words).json]

    assert ids("--where", "task=tasks:send", "--state", "pending") == [job]
    assert ids("--where", "state=pending", "--category", "mail") == [job]
    assert ids("--where", "category=mail", "--category", "reports") == []
    assert ids("--where", "state=pending", "--state", "failed") == []
    assert len(ids("--where", "task=tasks:*", "--limit", "1")) == 1


def test_a_damaged_record_is_found_by_what_is_still_known_of_it(project):
    job = project.dispatch("tasks:send", "--arg", '"a"')
    with closing(open_store(project.folder / ".jobsched")) as store:
        wanted = parse_id(job)
        with store._env.begin(write=True) as txn, txn.cursor(db=store._dbs.jobs) as cursor:
            assert cursor.set_range(wanted)
            key, value = cursor.item()
            assert key.startswith(wanted)
            cursor.put(key, value[:-3] + b"\xff\xff\xff")
    assert project("delete", "--where", "task=*", "--json").json["matched"] == 0
    assert project("retry", "--where", f"id={job}", "--json").json["matched"] == 0  # it is pending
    assert project("jobs", "--where", "state=pending", "--json").json[0]["task"] is None
    assert "damaged" in project("show", job).out
    assert project("show", job, "--json").json["args"] is None
    assert project("delete", "--where", f"id={job}", "--json").json["changed"] == 1

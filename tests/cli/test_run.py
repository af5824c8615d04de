import json
import re
import subprocess
from pathlib import Path

import pytest
from waiting import wait_for

TASKS = """
import time

@task(category="mail")
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"
"""


@pytest.fixture
def napping(project):
    """A project with a task that takes its time."""
    path = project.folder / "tasks.py"
    path.write_text(path.read_text() + TASKS)
    return project


def test_until_idle_runs_what_waits_and_ends(project):
    jobs = [project.dispatch("tasks:send", "--arg", f'"{n}"') for n in range(3)]
    delayed = project.dispatch("tasks:send", "--arg", '"late"', "--delay", "300ms")
    ran = project.process("run", "--until-idle")
    assert "completed=4" in ran.out.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert [project("show", job, "--json").json["state"] for job in [*jobs, delayed]] == ["completed"] * 4
    job = project("show", jobs[1], "--json").json
    assert (job["result"], job["attempt"]) == ("1: ", 1)
    assert job["started_at"] <= job["ended_at"]
    assert "'1: '" in project("show", jobs[1]).out


def test_until_idle_fails_if_a_job_failed_for_good(project):
    job = project.dispatch("tasks:fail", "--arg", '"\\u001b[2Jhopeless"')
    project.process("run", "--until-idle", code=1)
    found = project("show", job, "--json").json
    assert (found["state"], found["error"]) == ("failed", "ValueError: \x1b[2Jhopeless")
    assert "raise ValueError(why)" in found["traceback"]
    assert "\x1b" not in project("show", job).out
    assert "hopeless" in project("show", job).out


def test_the_live_view_shows_what_ran_and_passes_no_control_characters_on(project):
    project.dispatch("tasks:send", "--arg", '"a"')
    project.dispatch("tasks:fail", "--arg", '"\\u001b[35mhopeless"')
    shown = project.at_a_terminal("run", "--until-idle")
    assert "[35mhopeless" in shown
    assert "\x1b[35mhopeless" not in shown
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()
    assert ["total", "0", "0", "0", "1", "1", "0", "0"] in [line.split() for line in last]


def test_json_reports_are_an_object_a_line(project):
    project.dispatch("tasks:send", "--arg", '"a"')
    reports = project.process("run", "--until-idle", "--json").json_lines
    assert reports[-1]["categories"]["mail"]["completed"] == 1
    assert reports[-1]["ended"] == 1


def test_a_job_dispatched_to_a_node_can_be_waited_for(project):
    with project.node():
        assert project("dispatch", "tasks:send", "--arg", '"a"', "--arg", '"b"', "--wait").out == '"a: b"\n'
        failed = project("dispatch", "tasks:fail", "--arg", '"why"', "--wait", "--json", code=1).json
        assert failed["state"] == "failed"
        assert "ValueError: why" in failed["error"]
        assert "ValueError: why" in project("dispatch", "tasks:fail", "--arg", '"why"', "--wait", code=1).err
        assert project("stats", "--json").json["total"]["completed"] == 1


def test_a_running_job_is_asked_to_end(napping):
    with napping.node("--grace", "0s"):
        job = napping.dispatch("tasks:nap", "--arg", "60")
        wait_for(lambda: napping("show", job, "--json").json["state"] == "in_progress")
        assert napping("cancel", job, "--json").json == [{"id": job, "state": "in_progress"}]
        wait_for(lambda: napping("show", job, "--json").json["state"] == "cancelled")


def test_a_second_node_is_refused_and_told_who_runs(project):
    with project.node():
        assert "another node runs on" in project.process("run", code=2).err


def test_a_paused_category_waits_for_its_resume(project):
    with project.node():
        project("category", "pause", "mail")
        job = project.dispatch("tasks:send", "--arg", '"a"')
        assert project("show", job, "--json").json["state"] == "pending"
        project("category", "resume", "mail")
        wait_for(lambda: project("show", job, "--json").json["state"] == "completed")


def test_the_balancers_decisions_are_listed_with_their_reasons(project):
    project.dispatch("tasks:send", "--arg", '"a"')
    project.process("run", "--until-idle")
    decisions = project("balance", "log", "--json").json
    assert set(decisions[-1]) >= {"at", "budget", "backlog", "before", "after", "ideal", "reasons", "moves"}
    out = project("balance", "log", "-n", "1").out
    assert "budget 2" in out
    assert "mail" in out


def test_the_modules_of_a_broken_project_stop_the_node_before_it_starts(project):
    project.dispatch("tasks:send", "--category", "mail", "--arg", '"a"')
    project.write("tasks.py", "1 / 0\n")
    ran = project.process("run", "--until-idle", code=2)
    assert "ZeroDivisionError" in ran.err


def test_json_lines_of_a_running_node_arrive_while_it_runs(project):
    with project.node("--json") as running:
        report = json.loads(running.stdout.readline())
        assert set(report["categories"]) == {"mail", "reports"}


def test_a_grace_that_is_no_duration_is_bad_input(project):
    assert "--grace: '5' has no unit" in project.process("run", "--grace", "5", code=2).err


def test_a_node_whose_output_cannot_be_written_does_its_jobs_and_ends_by_its_own_code(project):
    tasks = project.folder / "tasks.py"
    tasks.write_text(tasks.read_text().replace("    return f", '    print("sending")\n    return f'))
    job = project.dispatch("tasks:send", "--arg", '"a"')
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            project.command("run", "--until-idle"), cwd=project.folder, env=project.environment,
            stdout=full, stderr=full, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    shown = project("show", job, "--json").json
    assert (shown["state"], [run["output"] for run in shown["attempts"]]) == ("completed", ["sending\n"])

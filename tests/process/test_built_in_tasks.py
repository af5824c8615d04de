"""The built-in tasks through nodes: what turns them on, what they may, and what is left of them."""

import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from nodes import Project, eventually, is_running

import jobsched
from jobsched import JobFailed, UnknownTask
from jobsched.job import State

PRINT, HTTP, SHELL = (f"jobsched.tasks.{name}:{name}" for name in ("print", "http", "shell"))
MODULES = [name.partition(":")[0] for name in (PRINT, HTTP, SHELL)]
FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] == "top":
    for leave in ("background", "group", "session", "daemon"):
        subprocess.Popen([sys.executable, __file__, leave])
elif sys.argv[1] == "group":
    os.setpgid(0, 0)
elif sys.argv[1] == "session":
    os.setsid()
elif os.fork():
    os._exit(0)
elif sys.argv[1] == "daemon":
    os.setsid()
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(1000)
"""
"""A program that with its descendants, five processes in all, ignores SIGTERM, each in its own way."""


@pytest.fixture(scope="module")
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_): ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A project with all of them on, and a node."""
    project = Project(tmp_path_factory.mktemp("built_in"))
    allow_loopback(project, tasks=MODULES)
    try:
        node = project.start()
        yield project, project.dispatcher()
        assert node.is_alive, node.end_of_log
    finally:
        project.close()


def allow_loopback(project, **settings):
    project.configure({"mail": {"max_workers": 1}, "reports": {}}, workers=3, **settings)
    with project.config.open("a") as file:
        file.write('\n[http]\nallow = ["127.0.0.1"]\n')


def test_they_run_as_any_task_does(served, server):
    project, jobs = served
    job = jobs.dispatch(SHELL, "mail", kwargs={"argv": ["sh", "-c", "echo $JOBSCHED_JOB_ID"]})
    assert job.result(20)["stdout"] == f"{job.id}\n"
    assert jobs.dispatch(HTTP, "mail", args=[server]).result(20)["body"] == "hello"
    job = jobs.dispatch(PRINT, "mail", args=["grüße"])
    assert job.result(20) is None
    assert "grüße" in project.stored(job.id).attempts[-1].log


def test_what_is_not_allowed_fails_at_once_and_says_what_to_do(served):
    _, jobs = served
    job = jobs.dispatch(HTTP, "mail", args=["http://127.0.0.2/"], max_retries=3)
    with pytest.raises(JobFailed, match=r"not public; to allow it, .* \[http\] allow = \['127.0.0.2'\]"):
        job.result(20)


def test_no_argument_of_a_job_allows_more(served):
    project, _ = served
    payload = '{"url": "http://127.0.0.2/", "allow": ["127.0.0.2"]}'
    job_id = dispatched(project, f"dispatch {HTTP} --category mail --payload '{payload}'")
    eventually(lambda: project.status(job_id).state is State.PARKED)
    assert "unexpected keyword argument 'allow'" in project.cause(job_id)


def test_a_program_that_fails_is_tried_again_and_one_that_is_not_there_is_not(served):
    project, jobs = served
    code = "echo out; test -e tried && exit 0; touch tried; echo not yet >&2; exit 3"
    options = {"argv": ["sh", "-c", code], "cwd": str(project.folder)}
    job = jobs.dispatch(SHELL, "mail", kwargs=options, max_retries=1)
    assert job.result(20)["stdout"] == "out\n"
    first = project.stored(job.id).attempts[0]
    assert "'sh' ended with exit code 3: not yet" in first.error.cause
    assert "the end of stdout:\nout" in first.log

    job = jobs.dispatch(SHELL, "mail", kwargs={"argv": ["no-such-program"]}, max_retries=5)
    with pytest.raises(JobFailed, match=r"cannot start 'no-such-program': .*No such file"):
        job.result(20)


def family(project, jobs, name, **options):
    """Dispatch the family; return the job once all five processes have started, and their pids."""
    folder = project.folder / name
    folder.mkdir()
    (folder / "family.py").write_text(FAMILY)
    kwargs = {"argv": [sys.executable, "family.py", "top"], "cwd": str(folder)} | options.pop("kwargs", {})
    job = jobs.dispatch(SHELL, "reports", kwargs=kwargs, **options)
    file = folder / "pids"
    pids = eventually(lambda: file.exists() and len(file.read_text().split()) == 5 and file.read_text())
    return job, [int(pid) for pid in pids.split()]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("own", {"kwargs": {"timeout_s": 3}}, "was ended after 3 s, its timeout_s"),
        ("soft", {"timeout": 3}, "timed out after 3 s"),
    ],
)
def test_nothing_of_a_program_survives_its_time_or_its_jobs(served, name, options, said):
    project, jobs = served
    job, pids = family(project, jobs, name, **options)
    with pytest.raises(JobFailed, match=said):
        job.result(20)
    if name == "soft":  # the worker leaves, and the rest with it
        eventually(lambda: not any(map(is_running, pids)), 5)
    assert not any(map(is_running, pids))
    assert "killed" not in project.cause(job.id)


def test_nothing_of_a_cancelled_job_survives(served):
    project, jobs = served
    job, pids = family(project, jobs, "cancelled")
    assert job.cancel(timeout=20)
    eventually(lambda: not any(map(is_running, pids)), 5)
    assert project.cause(job.id) == "cancelled: by an exception raised in it"


def test_nothing_is_left_where_the_worker_is_killed(served):
    project, jobs = served
    job, pids = family(project, jobs, "killed", at_most_once=True)
    (node,) = project.nodes
    (worker,) = [pid for pid in node.workers() if pids_below(pid) & set(pids)]
    subprocess.run(["kill", "-9", str(worker)], check=True)
    with pytest.raises(JobFailed):
        job.result(20)
    eventually(lambda: not any(map(is_running, pids)), 5)


def pids_below(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return set(map(int, found.stdout.split()))


def test_a_job_goes_on_beside_its_programs_own_background(served):
    """What a program has put into the background is not taken for a stray when another worker goes."""
    project, jobs = served
    code = """
        (sleep 1000 & echo $! > background)
        touch ready
        while ! test -e go; do sleep 0.01; done
        kill -0 $(cat background) && echo alive
    """
    folder = str(project.folder)
    job = jobs.dispatch(SHELL, "mail", kwargs={"argv": ["sh", "-c", code], "cwd": folder})
    eventually((project.folder / "ready").exists)
    other = jobs.dispatch(SHELL, "reports", kwargs={"argv": ["sleep", "1000"]}, timeout=0.2)
    with pytest.raises(JobFailed):
        other.result(20)
    (project.folder / "go").touch()
    assert job.result(20)["stdout"] == "alive\n"
    assert not is_running(int((project.folder / "background").read_text()))


# Off until they are listed.


@pytest.mark.parametrize("name", [PRINT, HTTP, SHELL])
def test_what_is_not_listed_is_refused_with_what_to_add(project, name):
    module = name.partition(":")[0]
    said = rf"unknown task '{name}': it is built in, and off until .*: tasks = \[\.\.\., '{module}'\]"
    with pytest.raises(UnknownTask, match=said):
        project.dispatcher().dispatch(name, "mail", args=["x"])
    project.configure({"mail": {}}, tasks=["tasks", module])
    assert project.dispatcher().dispatch(name, "mail", args=["x"]).state() == "pending"


def test_a_node_refuses_what_only_the_dispatcher_lists(project):
    listed = project.folder / "listed.toml"
    listed.write_text(project.config.read_text().replace('["tasks"]', json.dumps(["tasks", *MODULES])))
    project.start()
    eventually(lambda: refuses(project.dispatcher(listed), "tasks:unheard_of"))
    with pytest.raises(UnknownTask, match=r"it is built in, and off until"):
        project.dispatcher(listed).dispatch(SHELL, "mail", args=[["true"]])


def refuses(dispatcher, task):
    """Say whether the node knows its tasks by now: until then it refuses none."""
    try:
        dispatcher.dispatch(task, "mail")
    except UnknownTask:
        return True
    return False


def test_what_another_module_imports_stays_off(project):
    (project.folder / "tasks.py").write_text(
        "from jobsched import task\nfrom jobsched.tasks.shell import shell\n"
        "@task\ndef own():\n    return shell(['echo', 'by hand'])['stdout']\n"
    )
    listed = project.folder / "listed.toml"
    listed.write_text(project.config.read_text().replace('["tasks"]', json.dumps(["tasks", *MODULES])))
    early = project.dispatcher(listed).dispatch(SHELL, "mail", args=[["touch", "made"]])  # no node runs
    project.start()
    own = project.dispatcher().dispatch("tasks:own", "mail")
    assert own.result(20) == "by hand\n"  # the operator's own code may call it
    eventually(lambda: project.status(early.id).state is State.PARKED)
    assert "it is built in, and off" in project.cause(early.id)
    with pytest.raises(UnknownTask, match="it is built in, and off"):
        project.dispatcher(listed).dispatch(SHELL, "mail", args=[["true"]])


def test_the_examples_of_the_manual_run(project):
    project.configure({"mail": {}}, tasks=MODULES)
    ids = {
        name: [dispatched(project, command) for command in examples(name)] for name in (PRINT, HTTP, SHELL)
    }
    assert [len(found) for found in ids.values()] == [1, 2, 2]
    project.dispatcher().cancel(ids[HTTP])  # they would leave this machine
    assert project.run_until_idle() == 0
    results = [project.dispatcher().job(job_id).result(1) for job_id in ids[SHELL]]
    assert results[0]["stdout"].startswith("Linux")
    assert [line.split() for line in results[1]["stdout"].splitlines()] == [["1", "a"], ["2", "b"]]
    assert project.stored(ids[PRINT][0]).attempts[0].log == "hello\n"


def examples(name):
    """Return the commands of the manual that dispatch a task."""
    text = Path(jobsched.__file__).parents[1].joinpath("docs", "tasks.md").read_text()
    commands = re.findall(r"^    jobsched (dispatch (?:.*\\\n)*.*)$", text, re.MULTILINE)
    return [command for command in commands if name in command]


def dispatched(project, command):
    words = [
        sys.executable,
        "-m",
        "jobsched",
        "-c",
        str(project.config),
        *shlex.split(command.replace("\\\n", " ")),
    ]
    options = {"env": project.environment, "cwd": project.folder, "timeout": 60}
    return subprocess.run(words, check=True, capture_output=True, text=True, **options).stdout.strip()

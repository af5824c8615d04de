"""Clients that stop, crowd or pour: what others and the node's start have of it."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nodes import Node, eventually

from jobsched import Unavailable, gateway
from jobsched.job import State
from jobsched.node_connection import NodeConnection

WRITER = """
import os, signal, sys
from jobsched import Dispatcher
from jobsched.store.lmdb_turn import LmdbTurn

def stop_and_apply(self, turn, apply=LmdbTurn.apply):
    os.kill(os.getpid(), signal.SIGSTOP)
    return apply(self, turn)

LmdbTurn.apply = stop_and_apply
Dispatcher.from_config(sys.argv[1]).dispatch("tasks:mark", "mail", args=("written",))
"""

POURER = """
import json, sys, time
from jobsched import Dispatcher

dispatcher = Dispatcher.from_config(sys.argv[1])
for _ in range(2):
    jobs = [dispatcher.prepare("tasks:mark", "reports", args=(n,)) for n in range(100_000)]
    began = time.monotonic()
    dispatcher.dispatch_many(jobs)
    print(json.dumps([began, time.monotonic()]), flush=True)
"""


@pytest.fixture
def client(project):
    """Start scripts as clients of the project; end them with it."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(project.config)]
        started.append(
            subprocess.Popen(
                command, env=project.environment, cwd=project.folder, stdout=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stopped_writer(client) -> subprocess.Popen[str]:
    """Return a client that is stopped inside its own commit."""
    writer = client(WRITER)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
    return writer


# Stopped ones.


def test_a_node_names_the_stopped_client_that_it_waits_for_and_obeys_a_stop(project, client):
    limit_s = project.limit_s(2)
    writer = stopped_writer(client)
    node = project.launch()
    eventually(lambda: node.says("waiting for a client that writes to"))
    assert node.says(f"pid {writer.pid} ({sys.executable} -c")
    assert node.says("which is stopped")
    began = time.monotonic()
    node.terminate()
    assert node.wait() == 0
    assert time.monotonic() - began < limit_s
    assert not node.says("Traceback")


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_a_node_goes_on_when_the_client_that_it_waits_for_does_or_dies(project, client, end):
    writer = stopped_writer(client)
    node = project.launch()
    eventually(lambda: node.says("waiting for a client that writes to"))
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(project.dispatch_marks, "mail", [f"waited-{n}"]) for n in range(3)]
        with pytest.raises(TimeoutError):
            waiting[0].result(0.3)
        writer.send_signal(end)
        jobs = [job for dispatch in waiting for job in dispatch.result(20)]
    eventually(lambda: set(project.states(jobs)) == {"completed"})
    eventually(lambda: len(project.started("written")) == (end is signal.SIGCONT))
    assert node.says("s for a client that wrote to")


def test_a_client_beside_a_stopped_one_gives_up_and_names_it(project, client, monkeypatch):
    monkeypatch.setattr(gateway, "PATIENCE_S", 0.5)
    writer = stopped_writer(client)
    with pytest.raises(Unavailable, match=rf"writers.lock is held by pid {writer.pid} \(.*which is stopped"):
        project.dispatcher().dispatch("tasks:mark", "mail", args=("second",))


def test_a_second_node_names_the_holder_by_its_lock_and_not_by_an_old_note(project):
    node = project.start()
    lock = project.store_path / "node.lock"
    lock.write_text(json.dumps({"pid": 999_999_999, "started": "long ago"}))
    second = project.launch()
    assert second.wait() == 2
    assert second.says(f"another node runs on {project.store_path} (pid {node.pid} (")
    assert not second.says("long ago")


# Many.


def test_an_idle_client_that_made_room_dispatches_again(project):
    project.configure({"mail": {}}, workers=1)
    command = [sys.executable, "-m", "jobsched", "-c", str(project.config), "run"]
    node = Node(
        ["sh", "-c", f"ulimit -n 100; exec {shlex.join(command)}"], project.folder, project.environment
    )
    project.nodes.append(node)
    eventually(lambda: project.answers() or not node.is_alive)
    assert node.says("at most 28 clients at a time: 1 workers and 4096 clients need 4168 open files")
    dispatcher = project.dispatcher()
    with contextlib.ExitStack() as stack:
        for round_ in range(3):
            job = dispatcher.dispatch("tasks:mark", "mail", args=(f"round-{round_}",))
            assert job.result(20) == f"round-{round_}"
            for _ in range(40):
                stack.callback(NodeConnection(project.store_path).close)
        assert len(list(Path(f"/proc/{node.pid}/fd").iterdir())) < 100
    assert node.says("28 clients are connected, the most there may be")


def test_a_single_dispatch_does_not_wait_for_all_that_another_client_pours(project, client):
    project.start()
    dispatcher = project.dispatcher()
    dispatcher.pause("reports")
    dispatcher.dispatch("tasks:mark", "mail", args=("loaded",)).result(20)
    pourer = client(POURER)
    single: list[float] = []
    while pourer.poll() is None:
        began = time.monotonic()
        dispatcher.dispatch("tasks:mark", "mail", args=("single",))
        single.append(time.monotonic() - began)
    pours = [end - began for began, end in map(json.loads, pourer.stdout)]
    assert project.count(State.PENDING) >= 200_000
    assert max(single) < max(pours)  # at most one of its requests, never the next one too
    assert sorted(single)[len(single) // 2] < 0.05

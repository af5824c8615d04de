"""What happens in a real node is told: to hooks of the configuration, in a process of their own, and to
clients that listen.
"""

import json
import os
import signal
import threading
from collections import Counter
from contextlib import closing
from functools import partial

import psutil
import pytest
from nodes import eventually, is_running

from jobsched import event as events
from jobsched.config import load_config
from jobsched.job import State
from jobsched.node import Node
from jobsched.node_connection import NodeConnection
from jobsched.wire import Listen

JOBS = 200
FAILING, RETRIED = 20, 30
KILLER = 7  # the exit code


@pytest.fixture
def hooked(project):
    """A project with a hook, and a function that gives what it has heard."""
    project.bring("hooks", "event_tasks")
    project.configure({"mail": {}, "reports": {}}, tasks=["event_tasks"], hooks=["hooks:on_event"])
    return project


def heard(project):
    """Return what the hook has noted."""
    file = project.folder / "heard"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def kinds(project):
    return Counter(event["kind"] for event in heard(project))


def hook_pids(project):
    file = project.folder / "hook-pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def dispatch_all(project):
    """Dispatch jobs that fare in all ways; return their ids."""
    jobs = project.dispatcher()
    names = ["fail"] * FAILING + ["fail_once"] * RETRIED + ["die"]
    names += ["fare_well"] * (JOBS - len(names))
    prepared = [
        jobs.prepare(f"event_tasks:{name}", "mail" if place % 2 else "reports", args=(KILLER,))
        for place, name in enumerate(names)
    ]
    return [job.id for job in jobs.dispatch_many(prepared)]


def test_a_hook_gets_every_event_of_many_jobs(hooked):
    node = hooked.start()
    ids = set(dispatch_all(hooked))
    eventually(hooked.is_settled, 60)
    node.terminate()
    assert node.wait() == 0, node.end_of_log
    told = heard(hooked)
    assert {event["job"] for event in told if event["kind"] == "job.dispatched"} == ids
    count = kinds(hooked)
    assert "dropped" not in count
    assert count["job.dispatched"] == JOBS
    assert count["job.completed"] == JOBS - FAILING - 1
    assert count["job.failed"] == FAILING
    assert count["job.quarantined"] == 1
    assert count["job.retried"] == RETRIED + 2  # and the two first crashes
    assert count["job.queued"] == RETRIED
    gone = [event for event in told if event["kind"] == "worker.ended" and event["job"]]
    assert [(event["exit_code"], event["signal"]) for event in gone] == [(KILLER, None)] * 3
    # Each claim has one end, and each job's story ends as the store has it.
    ends = sum(
        count[f"job.{name}"] for name in ("completed", "failed", "quarantined", "retried", "given_back")
    )
    assert count["job.started"] == ends
    last = {event["job"]: event["kind"] for event in told if "job" in event and event["kind"][:4] == "job."}
    states = dict(zip(ids, hooked.states(list(ids)), strict=True))
    assert {job: f"job.{state}" for job, state in states.items()} == last
    assert told[-1]["kind"] == "node.stopped"
    assert [event["kind"] for event in told if event["kind"][:5] == "node."] == [
        "node.started",
        "node.draining",
        "node.stopped",
    ]
    assert [event["at"] for event in told if "job" in event] == sorted(
        event["at"] for event in told if "job" in event
    )


def test_a_killed_process_of_hooks_is_started_again_and_harms_nobody(hooked):
    node = hooked.start()
    [pid] = eventually(lambda: hook_pids(hooked))
    eventually(lambda: kinds(hooked)["worker.ready"])
    os.kill(pid, signal.SIGKILL)
    _, again = eventually(lambda: len(hook_pids(hooked)) == 2 and hook_pids(hooked))
    job = hooked.dispatcher().dispatch("event_tasks:fare_well", "mail", args=(5,))
    assert job.result(timeout=20) == 5
    eventually(lambda: kinds(hooked)["job.completed"])
    assert is_running(again)
    assert node.is_alive
    assert node.says("the hooks' process was killed by signal 9; started again in 0.1 s")
    assert not is_running(pid)


def test_the_process_of_hooks_ends_with_a_killed_node(hooked):
    node = hooked.start()
    [pid] = eventually(lambda: hook_pids(hooked))
    (hooked.folder / "closed").touch()
    node.kill()
    eventually(lambda: not is_running(pid))


def test_a_hook_that_raises_or_cannot_be_imported_is_no_harm_to_the_node(hooked):
    for name, said in [
        ("hooks:fail", "ValueError: node.started"),
        ("nowhere:hook", "No module named 'nowhere'"),
    ]:
        hooked.configure({"mail": {}}, tasks=["event_tasks"], hooks=[name])
        node = hooked.start()
        eventually(lambda node=node, said=said: node.says(said))
        job = hooked.dispatcher().dispatch("event_tasks:fare_well", "mail", args=(5,))
        assert job.result(timeout=20) == 5
        node.terminate()
        assert node.wait() == 0


def test_hooks_that_are_slow_get_all_events_within_the_grace_of_a_stop(hooked):
    node = hooked.start("--grace", "20s")
    eventually(lambda: hook_pids(hooked))
    (hooked.folder / "closed").touch()
    dispatch_all(hooked)
    eventually(hooked.is_settled, 60)
    node.terminate()
    eventually(lambda: not hooked.answers())
    assert node.is_alive
    (hooked.folder / "closed").unlink()
    assert node.wait() == 0
    assert heard(hooked)[-1]["kind"] == "node.stopped"


def test_a_hook_that_never_returns_is_ended_when_the_grace_is_over(hooked):
    hooked.configure({"mail": {}}, tasks=["event_tasks"], hooks=["hooks:stick"])
    node = hooked.start("--grace", "1s")
    [pid] = eventually(lambda: hook_pids(hooked))
    eventually(lambda: kinds(hooked)["worker.ready"])
    node.terminate()
    assert node.wait(20) == 0
    assert node.says("the hooks' process has not taken all events in time")
    assert not is_running(pid)


def test_a_hook_in_the_process_gets_every_event(project):
    project.bring("event_tasks")
    project.configure({"mail": {}}, tasks=["event_tasks"])
    told: list[events.Event] = []
    jobs = project.dispatcher()
    job = jobs.dispatch("event_tasks:fare_well", "mail", args=(5,))
    node = Node(load_config(project.config), until_idle=True, hook=told.append)
    assert node.run() == 0
    assert [event.kind for event in told if getattr(event, "job", None) == job.id] == [
        "job.started",
        "job.completed",
    ]
    assert (told[0].kind, told[-1].kind) == ("node.started", "node.stopped")


# Clients that listen.


def listen(project, **wanted):
    """Return a connection to the node, and what it tells as it comes."""
    connection = NodeConnection(project.store_path)
    return connection, connection.listen(Listen(1, **wanted))


def in_background(stream):
    """Gather what a stream tells, in a thread of its own; return both."""
    told: list[events.Event] = []

    def gather():
        for part in stream:
            told.extend(part)

    thread = threading.Thread(target=gather)
    thread.start()
    return told, thread


def test_a_client_that_listens_gets_what_it_wants_until_the_node_stops(hooked):
    node = hooked.start()
    connection, stream = listen(hooked, follow=True, kinds=frozenset({"job.failed", "job.completed"}))
    with closing(connection):
        told, thread = in_background(stream)
        # Until it is heard, events may pass by.
        jobs = hooked.dispatcher()
        eventually(lambda: jobs.dispatch("event_tasks:fare_well", "mail", args=(1,)).result(20) and told)
        before = len(told)
        dispatch_all(hooked)
        eventually(hooked.is_settled, 60)
        node.terminate()
        thread.join(30)
        assert not thread.is_alive()
    count = Counter(event.kind for event in told[before:])
    assert set(count) == {"job.failed", "job.completed"}
    assert count["job.failed"] == FAILING
    assert count["job.completed"] >= JOBS - FAILING - 1


def test_the_last_events_have_what_went_wrong_though_nobody_listened(project):
    project.bring("event_tasks")
    project.configure({"mail": {}, "reports": {}}, tasks=["event_tasks"])
    project.start()
    dispatch_all(project)
    eventually(project.is_settled, 60)
    connection, stream = listen(project)
    with closing(connection):
        count = Counter(event.kind for part in stream for event in part)
    assert (count["job.failed"], count["job.quarantined"]) == (FAILING, 1)
    assert count["job.retried"] == RETRIED
    assert count["worker.ended"] == 3
    assert count["job.completed"] == count["job.started"] == 0


def memory_kib(pid):
    return psutil.Process(pid).memory_info().rss >> 10


def test_a_listener_that_does_not_read_costs_little_and_hears_how_many_it_missed(project):
    project.bring("event_tasks")
    project.configure({"mail": {}, "reports": {}}, tasks=["event_tasks"])
    node = project.start()
    jobs = project.dispatcher()
    jobs.pause("mail")
    connection, stream = listen(project, follow=True)
    bulk = partial(jobs.prepare, "event_tasks:fare_well", "mail", args=(1,))
    with closing(connection):
        connection._socket.settimeout(20)
        jobs.dispatch_many([bulk()])
        next(stream)  # it is heard, and reads no more
        before = memory_kib(node.pid)
        rounds = 12
        for _ in range(rounds):
            jobs.dispatch_many([bulk() for _ in range(2500)])
        assert memory_kib(node.pid) - before < 40_000
        node.terminate()
        told = [event for part in stream for event in part]
    count = Counter(event.kind for event in told)
    missed = sum(event.count for event in told if event.kind == "dropped")
    assert missed > 0
    assert rounds * 2500 <= count["job.dispatched"] + missed <= rounds * 2500 + 50
    assert project.count(State.PENDING) == rounds * 2500 + 1
    assert told[-1].kind == "node.stopped"

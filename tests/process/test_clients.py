"""What clients see of a node: answers, results, refusals; and what bad ones cost: themselves."""

import contextlib
import datetime as dt
import os
import resource
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from nodes import Project, eventually, is_running
from recorded_tasks import Parcel

from jobsched import (
    Dispatcher,
    JobCancelled,
    JobFailed,
    JobschedError,
    ResultNotStored,
    ResultTimeout,
    Unavailable,
    UnknownTask,
)
from jobsched.courier import Courier
from jobsched.job import State
from jobsched.job_id import new_id
from jobsched.store.base import Accepted, Request
from jobsched.wire import VERSION, Bye, FromNode, Hello, Look, Welcome, frame, unix_address


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A project with a node that all tests of this module may use; none of them may hurt it."""
    project = Project(tmp_path_factory.mktemp("served"))
    project.configure({"mail": {}, "reports": {}, "shelf": {}}, workers=3)
    project.node = project.start()
    project.jobs = project.dispatcher()
    project.jobs.pause("shelf")
    project.jobs.dispatch("tasks:mark", "mail", args=("loaded",)).result(20)
    yield project
    project.close()


@pytest.fixture(autouse=True)
def _alive(request):
    """Whatever a test does, the node that they share goes on and serves others."""
    yield
    if "served" in request.fixturenames:
        served = request.getfixturevalue("served")
        assert served.node.is_alive, served.node.end_of_log
        assert served.jobs.dispatch("tasks:mark", "mail", args=("still",)).result(20) == "still"


# Bad clients.


@contextlib.contextmanager
def connected(project):
    """A connection that speaks what it is told to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        with unix_address(project.store_path) as address:
            connection.connect(address)
        yield connection


def answers(connection):
    """Return all messages that come until the node hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            data += part
    messages = []
    while data:
        size = int.from_bytes(data[:4], "big")
        messages.append(msgspec.msgpack.decode(data[4 : 4 + size], type=FromNode))
        data = data[4 + size :]
    return messages


GREETING = frame(Hello())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "the limit is"),
        (b"\0\0\0\x08\xc1garbage", "a client sent what is no message"),
        (b"\0\0\0\x02\xff\xff", "a client sent what is no message"),
        (GREETING + b"\0\0\0\x00", "a client sent what is no message"),
        (GREETING + (3 << 30).to_bytes(4, "big") + b"x" * 1000, "3,221,225,472 bytes"),
        (frame(Look(1, bytes(16))), "the first frame must be a greeting"),
        (GREETING + frame(Welcome(1)), "a client sent what is no message"),
    ],
    ids=["http", "garbage", "no msgpack", "empty", "3 GB", "no greeting", "wrong direction"],
)
def test_a_client_that_does_not_speak_our_protocol_is_told_so_and_dropped(served, sent, reason):
    with connected(served) as connection:
        connection.sendall(sent)
        *_, last = answers(connection)
    assert isinstance(last, Bye)
    assert reason in last.reason


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\x10\0half a frame", GREETING, GREETING + b"\0"])
def test_a_client_that_hangs_up_in_the_midst_of_a_frame_is_forgotten(served, sent):
    with connected(served) as connection:
        connection.sendall(sent)


def test_a_client_of_another_version_is_told_both_versions(served):
    with connected(served) as connection:
        connection.sendall(frame(Hello(version=VERSION + 7)))
        (bye,) = answers(connection)
    assert bye.kind == "WireVersionError"
    assert f"version {VERSION + 7} meets {VERSION}" in bye.reason


def test_more_clients_than_descriptors_cost_neither_the_node_nor_its_log(project):
    node = project.start()
    dispatcher = project.dispatcher()
    assert dispatcher.dispatch("tasks:mark", "mail", args=("before",)).result(10) == "before"
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (160, 160))
    with contextlib.ExitStack() as stack:
        for _ in range(240):
            stack.enter_context(connected(project))
        for n in range(100):  # by the connection that it has
            dispatcher.dispatch("tasks:mark", "mail", args=(f"meanwhile-{n}",))
        victim = project.runs()[0].pid
        os.kill(victim, 9)
        eventually(lambda: not is_running(victim))
        eventually(lambda: project.count(State.COMPLETED) == 101 or not node.is_alive)
        assert node.is_alive, node.end_of_log
    assert dispatcher.dispatch("tasks:mark", "mail", args=("after",)).result(10) == "after"
    assert len(node.log.read_text().splitlines()) < 500


# Nodes that do not come up.


def test_a_second_node_ends_with_code_2_and_names_the_holder(served):
    second = served.launch()
    assert second.wait() == 2
    assert second.says("another node runs on")
    assert second.says(f"pid {served.node.pid}")
    assert not second.says("Traceback")


def test_a_task_module_that_cannot_be_imported_ends_the_node_and_keeps_the_jobs(project):
    job = project.dispatcher().dispatch("tasks:mark", "mail", args=("kept",))
    good = (project.folder / "tasks.py").read_text()
    (project.folder / "tasks.py").write_text("1 / 0\n")
    node = project.launch()
    assert node.wait() == 2
    assert node.says("task module 'tasks' cannot be imported")
    assert node.says("ZeroDivisionError")
    assert not node.says("jobsched/node.py")
    assert project.left_behind() == []
    (project.folder / "tasks.py").write_text(good)
    assert job.state() == "pending"
    assert project.run_until_idle() == 0
    assert job.state() == "completed"


# Other places.


def test_a_store_path_longer_than_a_socket_address_works(tmp_path):
    deep = tmp_path / ("d" * 70) / ("e" * 70)
    deep.mkdir(parents=True)
    project = Project(deep)
    try:
        project.start()
        assert project.dispatcher().dispatch("tasks:mark", "mail", args=("deep",)).result(10) == "deep"
    finally:
        project.close()


def test_a_store_in_memory_is_reached_through_its_node_alone(project):
    project.configure({"mail": {}}, store="memory:")
    dispatcher = project.dispatcher()
    with pytest.raises(Unavailable, match="start `jobsched run` first"):
        dispatcher.dispatch("tasks:mark", "mail", args=("early",))
    project.start()
    job = dispatcher.dispatch("tasks:mark", "mail", args=("remembered",))
    assert job.result(10) == "remembered"
    assert job.state() == "completed"
    assert not (project.store_path / "data.mdb").exists()


# Dispatching.


def test_an_unknown_task_is_refused_with_the_nearest_name(served):
    before = len(served.ids())
    with pytest.raises(UnknownTask, match="unknown task 'tasks:marc', did you mean 'tasks:mark'"):
        served.jobs.dispatch("tasks:marc", "shelf")
    assert len(served.ids()) == before


def test_a_dispatch_of_the_same_id_again_is_one_job(served):
    job_id = str(uuid.UUID(bytes=new_id()))
    with ThreadPoolExecutor(8) as threads:
        jobs = list(
            threads.map(
                lambda _: served.jobs.dispatch("tasks:mark", "mail", args=("one",), id=job_id), range(8)
            )
        )
    assert {job.id for job in jobs} == {job_id}
    assert jobs[0].result(10) == "one"
    assert served.jobs.dispatch("tasks:mark", "mail", args=("one",), id=job_id).state() == "completed"
    assert len(served.started("one")) == 1


def test_a_request_of_many_frames_is_one_request(served):
    big = "x" * 100_000
    jobs = served.jobs.dispatch_many(
        [served.jobs.prepare("tasks:mark", "shelf", args=(f"{n}{big}",)) for n in range(60)]
    )
    assert served.states([job.id for job in jobs]) == ["pending"] * 60


@pytest.mark.parametrize("with_node", [True, False])
def test_threads_that_dispatch_at_once_share_commits(project, with_node):
    dispatcher = project.dispatcher()
    if with_node:
        project.start()
    dispatcher.dispatch("tasks:mark", "mail", 3600, args=("first",))
    with project.store() as store:
        before = store._env.info()["last_txnid"]
        with ThreadPoolExecutor(16) as threads:
            list(
                threads.map(lambda n: dispatcher.dispatch("tasks:mark", "mail", 3600, args=(n,)), range(640))
            )
        commits = store._env.info()["last_txnid"] - before
    assert project.count(State.SCHEDULED) == 641
    assert commits < 640 / 2


@pytest.mark.parametrize("with_node", [True, False])
def test_a_forked_child_dispatches_like_its_parent(project, with_node):
    dispatcher = project.dispatcher()
    if with_node:
        project.start()
    jobs = [dispatcher.dispatch("tasks:mark", "mail", 3600, args=("parent",))]
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(Exception):
                for _ in range(20):
                    dispatcher.dispatch("tasks:mark", "mail", 3600, args=("child",))
                code = 0
            os._exit(code)
        jobs += [dispatcher.dispatch("tasks:mark", "mail", 3600, args=("parent",)) for _ in range(20)]
        assert os.waitpid(child, 0)[1] == 0
    assert project.count(State.SCHEDULED) == 1 + 3 * 40
    assert {job.state() for job in jobs} == {"scheduled"}


def test_a_thread_whose_request_is_too_large_fails_alone(served):
    """The threads of a process send their requests together."""
    small, errors = [], 0

    def dispatch_small():
        for _ in range(40):
            job = served.jobs.dispatch("tasks:mark", "shelf", args=("small",))
            small.append(job.id)

    huge = [served.jobs.prepare("tasks:mark", "shelf", args=("huge",))] * 100_001
    threads = [threading.Thread(target=dispatch_small) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with pytest.raises(JobschedError, match="100,000 jobs"):
            served.jobs.dispatch_many(huge)
        errors += 1
    assert errors
    assert len(small) == 80
    assert set(served.states(small)) == {"pending"}


def test_an_interrupted_thread_interrupts_no_other():
    """Three wait while one request is on its way; the one that then carries all is interrupted. The
    others may ask again.
    """
    may_go, carried = threading.Event(), []

    def exchange(requests):
        carried.append(len(requests))
        if len(carried) == 1:
            may_go.wait(10)
        if len(carried) == 2:
            raise KeyboardInterrupt
        return [Accepted()] * len(requests)

    courier = Courier(exchange)

    def call(_):
        try:
            return courier.call(Request())
        except (KeyboardInterrupt, Unavailable) as error:
            return type(error)

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(call, 0)
        eventually(lambda: carried == [1])
        others = [threads.submit(call, n) for n in range(3)]
        eventually(lambda: len(courier._waiting) == 3)
        may_go.set()
    assert first.result() == Accepted()
    ended = [other.result() for other in others]
    assert ended.count(KeyboardInterrupt) == 1
    assert all(end in (KeyboardInterrupt, Unavailable, Accepted()) for end in ended)
    assert courier.call(Request()) == Accepted()


# Results.


def test_a_result_is_waited_for_and_comes_through_the_node(served):
    job = served.jobs.dispatch("tasks:until", "mail", args=("waited", "gate-waited"))
    with pytest.raises(ResultTimeout, match=r"in_progress|pending"):
        job.result(timeout=0.05)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(job.result, 20) for _ in range(4)]
        eventually(lambda: served.started("waited"))
        served.open("gate-waited")
        assert [result.result() for result in waiting] == ["waited"] * 4
    assert job.result(timeout=0) == "waited"
    assert served.jobs.job(job.id).result() == "waited"


def test_the_result_of_a_failed_job_says_why(served):
    job = served.jobs.dispatch("tasks:fail", "mail", args=("no good",))
    with pytest.raises(JobFailed, match="ValueError: no good") as caught:
        job.result(timeout=10)
    assert caught.value.cause == "ValueError: no good"
    assert "raise ValueError(why)" in caught.value.traceback
    assert "jobsched/runner.py" not in caught.value.traceback


def test_whoever_waits_for_a_job_that_is_cancelled_is_told(served):
    job = served.jobs.dispatch("tasks:mark", "shelf", args=("never",))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(job.result, 20)
        eventually(waiting.running)
        assert job.cancel()
        with pytest.raises(JobCancelled):
            waiting.result()
    with pytest.raises(JobCancelled):
        job.result(timeout=0)


@pytest.mark.parametrize(("kind", "why"), [("object", "builtins.object"), ("large", "1,048,576")])
def test_a_result_that_cannot_be_kept_is_said_to_be_missing(served, kind, why):
    job = served.jobs.dispatch("tasks:unstorable", "mail", args=(kind,))
    with pytest.raises(ResultNotStored, match=why):
        job.result(timeout=10)
    assert job.state() == "completed"


def test_waiting_for_a_result_outlasts_a_killed_node(project):
    node = project.start()
    job = project.dispatcher().dispatch("tasks:until", "mail", args=("long", "gate"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(job.result, 30)
        eventually(lambda: project.started("long"))
        node.kill()
        project.start()
        project.open("gate")
        assert waiting.result() == "long"


def test_a_node_that_does_not_answer_costs_a_waiter_little_more_than_its_timeout(project):
    node = project.start()
    job = project.dispatcher().dispatch("tasks:mark", "mail", 3600, args=("late",))
    with ThreadPoolExecutor(1) as threads, node.stopped():
        waiting = threads.submit(job.result, 0.2)
        eventually(waiting.done, 3)
        assert isinstance(waiting.exception(), ResultTimeout | Unavailable)


# Inside jobs.


def test_a_job_dispatches_jobs(served):
    inner = served.jobs.dispatch("tasks:dispatch_inside", "mail", args=("inner", "reports")).result(20)
    assert served.jobs.job(inner).result(20) == "inner"


def test_a_coroutine_job_dispatches_jobs(served):
    outer = served.jobs.dispatch("tasks:dispatch_inside_async", "mail", args=("inner", "reports"))
    awaited, plain = outer.result(20)
    assert served.jobs.job(awaited).result(20) == "inner-awaited"
    assert served.jobs.job(plain).result(20) == "inner-plain"


def test_a_job_dispatches_also_in_a_worker_whose_environment_another_one_has_cleared(project):
    project.configure({"mail": {}}, workers=1)
    project.start()
    jobs = project.dispatcher()
    jobs.dispatch("tasks:leave_home", "mail").result(20)
    inner = jobs.dispatch("tasks:dispatch_inside", "mail", args=("inner", "mail")).result(20)
    assert jobs.job(inner).result(20) == "inner"


def test_a_job_waits_for_a_job_of_another_category(served):
    outer = served.jobs.dispatch("tasks:ask_another", "mail", args=("asked", "reports"))
    assert outer.result(20) == "got asked"


def test_a_thread_of_a_job_that_waits_for_a_result_does_not_hold_up_its_other_dispatches(served):
    outer = served.jobs.dispatch("tasks:ask_another_while_dispatching", "mail", args=("both", "reports"))
    assert outer.result(20) == "both"


def test_a_thread_that_a_job_has_left_waiting_takes_no_work_from_the_jobs_after_it(project):
    project.configure({"mail": {"max_workers": 1}, "reports": {"max_workers": 1}}, workers=2)
    project.start()
    jobs = project.dispatcher()
    jobs.dispatch("tasks:leave_a_thread_waiting", "mail", args=("other", "reports")).result(20)
    ids = project.dispatch_marks("mail", [f"after-{number}" for number in range(5000)])
    eventually(lambda: project.count(State.COMPLETED) == len(ids) + 1)
    project.open("gate-other")
    assert len({run.pid for run in project.runs()}) == 2


def test_a_process_that_a_job_forks_may_dispatch_too(served):
    outer = served.jobs.dispatch("tasks:dispatch_in_fork", "mail", args=("forked", "reports"))
    assert outer.result(10) == 0
    labels = {f"forked-{who}-{n}" for who in ("parent", "child") for n in range(20)}
    eventually(lambda: labels <= {run.label for run in served.runs()})


@pytest.mark.parametrize("task", ["too_long", "too_long_async"])
def test_a_job_over_its_timeout_is_stopped_and_charged_as_failed(served, task):
    began = time.monotonic()
    job = served.jobs.dispatch(f"tasks:{task}", "mail", args=(task,))
    with pytest.raises(JobFailed, match=r"timed out after 0\.2 s"):
        job.result(timeout=20)
    assert time.monotonic() - began < 5
    (run,) = served.started(task)
    assert run.end is not None
    status = served.status(job.id)
    assert (status.state, status.attempt, status.crashes) == (State.FAILED, 1, 0)


def test_a_timeout_in_the_midst_of_a_dispatch_tears_no_frame(served):
    jobs = [served.jobs.dispatch("tasks:dispatch_until_timeout", "mail", args=("shelf",)) for _ in range(30)]
    for job in jobs:
        with pytest.raises(JobFailed, match=r"timed out after 0\.05 s"):
            job.result(timeout=20)
    assert {served.status(job.id).crashes for job in jobs} == {0}


def test_annotated_arguments_arrive_as_their_types(served):
    when = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)
    arguments = {"who": uuid.uuid4(), "when": when, "parcel": Parcel(weight=1, tags={"a", "b"})}
    job = served.jobs.dispatch("tasks:typed", "mail", kwargs=arguments)
    assert job.result(20) == ["UUID", "datetime", "Parcel", "set"]
    wrong = served.jobs.dispatch("tasks:typed", "mail", kwargs=arguments | {"who": "nobody"})
    with pytest.raises(JobFailed, match=r"args\.who of task 'tasks:typed'"):
        wrong.result(20)


def test_a_dispatcher_of_a_config_file_uses_the_same_node(served):
    other = Dispatcher.from_config(served.config)
    try:
        assert other.dispatch("tasks:mark", "mail", args=("other",)).result(20) == "other"
    finally:
        other.close()

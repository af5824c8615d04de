"""Jobs that nobody can run now: set aside with the reason, and run once somebody can."""

import contextlib

import lmdb
import psutil
from nodes import eventually

from jobsched.job import ParkedFor, State
from jobsched.job_id import parse_id
from jobsched.node_connection import NodeConnection
from jobsched.store.base import Request
from jobsched.wire import ask_frames

LATER = """

@task
def later(label: str) -> str:
    with recorded(label):
        return label + " at last"
"""

GATED = """
import time
from pathlib import Path

while not (Path(__file__).parent / "gate").exists():
    time.sleep(0.002)
Path(__file__).with_name("loaded").touch()
"""


def parked_for(project, job):
    status = project.status(job.id)
    assert (status.state, status.attempt) == (State.PARKED, 0)
    return status.parked_for


def is_parked(project, job):
    return project.states([job.id]) == ["parked"]


def test_jobs_are_parked_with_the_reason_and_run_by_themselves_once_they_can(project):
    """With a task that comes later, and with a signature that is mended."""
    node = project.start()
    jobs = project.dispatcher()
    jobs.dispatch("tasks:mark", "mail", args=("loaded",)).result(20)
    prepared = jobs.prepare("tasks:later", "mail", args=("unknown",))
    (unknown,) = jobs.dispatch_many([prepared], allow_unknown=True)
    unfit = jobs.dispatch("tasks:mark", "reports", args=("unfit", 0.0, "second class"))
    never = jobs.dispatch("tasks:mark", "reports", kwargs={"wrong": "never"})
    for job in (unknown, unfit, never):
        eventually(lambda job=job: is_parked(project, job))
    assert parked_for(project, unknown) is ParkedFor.UNKNOWN_TASK
    assert project.cause(unknown.id).startswith("unknown task 'tasks:later'")
    assert parked_for(project, unfit) is ParkedFor.BAD_ARGUMENTS
    assert project.cause(unfit.id).startswith(
        "task 'tasks:mark': too many positional arguments; it takes (label"
    )
    node.terminate()
    assert node.wait() == 0
    tasks = project.folder / "tasks.py"
    mended = tasks.read_text().replace(
        "def mark(label: str, seconds: float = 0.0)", "def mark(label, seconds=0, how='')"
    )
    tasks.write_text(mended + LATER)
    assert project.run_until_idle() == 0
    assert (unknown.result(0), unfit.result(0)) == ("unknown at last", "unfit")
    assert [run.attempt for run in project.runs()] == [1, 1, 1]
    assert parked_for(project, never) is ParkedFor.BAD_ARGUMENTS


def test_a_job_with_a_damaged_record_stays_parked_and_is_never_run(project):
    jobs = project.dispatcher()
    damaged, whole = (jobs.dispatch("tasks:mark", "mail", args=(label,)) for label in ("damaged", "whole"))
    jobs.close()
    damage(project, damaged)
    node = project.start()
    eventually(lambda: project.states([damaged.id, whole.id]) == ["parked", "completed"])
    jobs = project.dispatcher()
    assert jobs.retry([damaged.id]) in ([State.PENDING], [State.IN_PROGRESS])
    behind = jobs.dispatch("tasks:mark", "mail", args=("behind",))
    assert behind.result(20) == "behind"
    eventually(lambda: is_parked(project, damaged))  # it had to be looked at to be known
    node.kill()
    assert project.run_until_idle() == 0
    assert parked_for(project, damaged) is ParkedFor.UNREADABLE
    assert [run.label for run in project.runs()] == ["whole", "behind"]


def test_a_parked_job_that_is_cancelled_at_the_moment_when_it_could_run_does_not(project):
    """The node is stopped while its modules are loaded, so it finds both at once."""
    project.configure({"mail": {}}, tasks=["tasks", "gated"])
    (project.folder / "gated.py").write_text(GATED)
    jobs = project.dispatcher()
    job = jobs.dispatch("tasks:later", "mail", args=("cancelled",))
    project.open("gate")
    assert project.run_until_idle() == 0
    assert is_parked(project, job)
    for file in ("gate", "loaded"):
        (project.folder / file).unlink()
    tasks = project.folder / "tasks.py"
    tasks.write_text(tasks.read_text() + LATER)
    node = project.start()
    with contextlib.closing(NodeConnection(project.store_path)) as cancelling:
        with node.stopped():
            project.open("gate")
            eventually((project.folder / "loaded").exists)
            eventually(lambda: is_at_rest(node.preloader()))  # it has told the node
            for part in ask_frames(1, Request(cancel=[parse_id(job.id)])):
                cancelling._socket.sendall(part)
        cancelling._receive()
    jobs.dispatch("tasks:mark", "mail", args=("behind",)).result(20)
    assert job.state() == "cancelled"
    assert project.started("cancelled") == []


def is_at_rest(process):
    """Say whether a process does nothing, looked at ten times."""
    before = process.cpu_times()
    calm = 0
    while calm < 10 and process.status() == psutil.STATUS_SLEEPING:
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(0.01)
        calm += 1
    return calm == 10 and process.cpu_times() == before


def damage(project, job):
    """Change a byte in the middle of a job's record."""
    with lmdb.open(str(project.store_path), max_dbs=32, map_size=1 << 30) as environment:
        rows = environment.open_db(b"jobs", create=False)
        with environment.begin(write=True, db=rows) as txn:
            cursor = txn.cursor()
            assert cursor.set_range(parse_id(job.id))
            record = bytearray(cursor.value())
            record[len(record) // 2] ^= 0xFF
            txn.put(cursor.key(), bytes(record))

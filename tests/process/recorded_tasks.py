"""The tasks of every project of these tests: a copy of this file is its tasks.py.

A run leaves a line in the file `runs` when it starts and one when it ends, so that runs can be
counted, ordered, and compared with what the store says.
"""

import asyncio
import dataclasses
import datetime as dt
import fcntl
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from jobsched import Backoff, adispatch, current_job, dispatch, task

HERE = Path(__file__).parent
PATIENCE_S = 60.0


@cache
def runs_file(_pid: int) -> int:
    return os.open(HERE / "runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event: str, label: str) -> None:
    job = current_job()
    line = f"{event} {label} {os.getpid()} {job.attempt} {time.monotonic_ns()}\n"
    os.write(runs_file(os.getpid()), line.encode())


@contextmanager
def recorded(label: str) -> Iterator[None]:
    note("start", label)
    try:
        yield
    finally:
        note("end", label)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.002)


@task
def mark(label: str, seconds: float = 0.0) -> str:
    with recorded(label):
        if seconds:
            time.sleep(seconds)
    return label


@contextmanager
def recorded_alone(label: str) -> Iterator[None]:
    """Also note an `overlap` if another run of the same job is still there."""
    lock = os.open(HERE / f"lock-{current_job().id}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlap", label)
    with recorded(label):
        yield
    os.close(lock)


@task
def alone(label: str) -> None:
    with recorded_alone(label):
        pass


@task
def until(label: str, gate: str) -> str:
    """Run until the file `gate` is there."""
    with recorded_alone(label):
        wait_for(HERE / gate)
    return label


@task
def grandchild(label: str, gate: str) -> None:
    """Start a process that outlives its session, say its pid in a file, and wait."""
    with recorded(label):
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        (HERE / f"pid-{label}").write_text(f"{child.pid}\n")
        wait_for(HERE / gate)


@task
def leave(label: str, code: int) -> None:
    note("start", label)
    os._exit(code)


@task
def kill_worker(label: str) -> None:
    note("start", label)
    os.kill(os.getpid(), signal.SIGKILL)


@task(backoff=Backoff(base=0.05, jitter=0))
def fail_until(label: str, attempt: int) -> int:
    note("start", label)
    if current_job().attempt < attempt:
        raise ValueError(label)
    return current_job().attempt


@task
def dispatch_and_die(label: str, category: str, gate: str) -> None:
    """Dispatch in a thread, and leave before the answer is there."""
    with recorded(label):
        wait_for(HERE / gate)
        arguments = {"args": (f"{label}-poured",)}
        threading.Thread(
            target=dispatch, args=("tasks:mark", category), kwargs=arguments, daemon=True
        ).start()
        time.sleep(0.05)
        os._exit(9)


@task
def dispatch_inside(label: str, category: str) -> str:
    return dispatch("tasks:mark", category, args=(label,)).id


@task
def leave_home() -> None:
    os.chdir("/")
    os.environ.clear()


@task
async def dispatch_inside_async(label: str, category: str) -> list[str]:
    awaited = await adispatch("tasks:mark", category, args=(f"{label}-awaited",))
    return [awaited.id, dispatch("tasks:mark", category, args=(f"{label}-plain",)).id]


@task
def ask_another(label: str, category: str) -> str:
    return "got " + dispatch("tasks:mark", category, args=(label,)).result(timeout=20)


@task
async def ask_another_while_dispatching(label: str, category: str) -> str:
    """Wait in a thread for a job that ends only once another dispatch has come through."""
    first = await adispatch("tasks:until", category, args=(label, f"gate-{label}"))
    waiting = asyncio.create_task(asyncio.to_thread(first.result, 5))
    await asyncio.sleep(0.1)
    await adispatch("tasks:open_gate", category, args=(f"gate-{label}",))
    return await waiting


@task
def leave_a_thread_waiting(label: str, category: str) -> None:
    """End while a thread still waits for another job."""
    job = dispatch("tasks:until", category, args=(label, f"gate-{label}"))
    threading.Thread(target=job.result, args=(PATIENCE_S,), daemon=True).start()
    time.sleep(0.1)


@task
def open_gate(gate: str) -> None:
    (HERE / gate).touch()


@task
def dispatch_in_fork(label: str, category: str) -> int:
    """Dispatch from a forked child of the worker, and here at the same time."""
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                dispatch("tasks:mark", category, args=(f"{label}-child-{number}",))
        finally:
            os._exit(0)
    for number in range(20):
        dispatch("tasks:mark", category, args=(f"{label}-parent-{number}",))
    return os.waitpid(child, 0)[1]


@task(timeout=0.2)
def too_long(label: str) -> None:
    with recorded(label):
        time.sleep(PATIENCE_S)


@task(timeout=0.2)
async def too_long_async(label: str) -> None:
    with recorded(label):
        await asyncio.sleep(PATIENCE_S)


@task(timeout=0.05)
def dispatch_until_timeout(category: str) -> None:
    while True:
        dispatch("tasks:mark", category, args=("poured",))


@task
def fail(why: str) -> None:
    raise ValueError(why)


@task
def unstorable(kind: str) -> object:
    return object() if kind == "object" else b"x" * (2 << 20)


@dataclasses.dataclass
class Parcel:
    weight: float
    tags: set[str]


@task
def typed(who: uuid.UUID, when: dt.datetime, parcel: Parcel) -> list[str]:
    return [type(who).__name__, type(when).__name__, type(parcel).__name__, type(parcel.tags).__name__]

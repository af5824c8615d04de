"""Tasks that go on: until they are told to end, told twice, or killed."""

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from recorded_tasks import HERE, PATIENCE_S, note, recorded, wait_for

from jobsched import Backoff, JobCancel, JobInterrupted, current_job, default_dispatcher, task

SOON = Backoff(base=0.01, jitter=0)


@task
def sleep(label: str) -> None:
    with recorded(label):
        time.sleep(PATIENCE_S)


@task
def lock(label: str) -> None:
    """Wait for a lock that nobody lets go of."""
    taken = threading.Lock()
    with recorded(label), taken:
        taken.acquire()


@task
async def sleep_async(label: str) -> None:
    with recorded(label):
        await asyncio.sleep(PATIENCE_S)


@task
async def leave_a_thread_async(label: str) -> None:
    """Wait for a thread, which goes on when the time is up."""
    with recorded(label):
        await asyncio.to_thread(time.sleep, PATIENCE_S)


@task
def catch_exceptions(label: str) -> None:
    """As much user code does: it survives any Exception."""
    with recorded(label):
        while True:
            with contextlib.suppress(Exception):
                time.sleep(PATIENCE_S)


@task(backoff=SOON)
def swallow(label: str) -> int:
    """Survive everything, but only at the first attempt."""
    note("start", label)
    while current_job().attempt == 1:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)
    return current_job().attempt


@task
def compute(label: str) -> int:
    """Stay in C code, where no signal's handler is called."""
    note("start", label)
    return sum(itertools.repeat(1, 10**11))


@task
def block_signals(label: str) -> None:
    note("start", label)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(PATIENCE_S)


@task
async def block_loop(label: str) -> None:
    """Hold up the event loop, so that its clock stands still."""
    note("start", label)
    time.sleep(PATIENCE_S)  # noqa: ASYNC251


@task
def leave_children(label: str) -> None:
    """Start a process in a session of its own, and one whose parent has left; then survive all."""
    note("start", label)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    keep_pid(label, "session", child.pid)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            keep_pid(label, "orphan", os.getpid())
            os.execlp("sleep", "sleep", "1000")
        os._exit(0)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@task
def fork_back(label: str) -> None:
    """Let a forked child come back from the job, and survive all."""
    note("start", label)
    child = os.fork()
    if child == 0:
        return
    os.waitpid(child, 0)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def keep_pid(label: str, kind: str, pid: int) -> None:
    new = HERE / f"{kind}-{label}.new"
    new.write_text(str(pid))
    new.rename(HERE / f"{kind}-{label}")


def rest_s() -> float | None:
    deadline = current_job().deadline
    return None if deadline is None else (deadline - dt.datetime.now(dt.UTC)).total_seconds()


@task
def tell_rest() -> float | None:
    return rest_s()


@task(timeout=300)
def tell_rest_of_300() -> float | None:
    return rest_s()


@task(timeout=300)
async def tell_rest_of_300_async() -> float | None:
    return rest_s()


@task(timeout=0.125, kill_after=0.02)
def swallow_not_a_moment(label: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@task(timeout=0.125)
def swallow_for_long(label: str) -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


# Cancelled ones.


@task
def ask_whether_cancelled(label: str) -> str:
    with recorded(label):
        while not current_job().cancelled():
            time.sleep(0.005)
    return label


@task
def ask_once(label: str) -> None:
    """Look like one that ends by itself, and do not."""
    with recorded(label):
        current_job().cancelled()
        time.sleep(PATIENCE_S)


@task
async def ask_whether_cancelled_async(label: str) -> str:
    with recorded(label):
        while not current_job().cancelled():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return label


@task(max_retries=5, backoff=SOON)
def fail_when_cancelled(label: str, gate: str) -> None:
    """Fail when cancelled, once the file `gate` is there."""
    note("start", label)
    try:
        time.sleep(PATIENCE_S)
    except JobCancel:
        wait_for(HERE / gate)
        raise RuntimeError("cannot clean up") from None


@task
def finish_when_cancelled(label: str) -> str:
    with recorded(label):
        try:
            time.sleep(PATIENCE_S)
        except JobInterrupted:
            return "finished after all"
    return "slept"


@task
def cancel_other(label: str, job_id: str, gate: str) -> str | None:
    """Cancel a job, say what became of it, and wait."""
    with recorded(label):
        (state,) = default_dispatcher().cancel([job_id])
        wait_for(HERE / gate)
    return None if state is None else str(state)


@task
def stop_process(pid: int) -> None:
    """Stop a process like a debugger does."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE_S
    while b") T " not in Path(f"/proc/{pid}/stat").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.001)


@task
def write_to_all_sockets(label: str) -> None:
    """Write what is no message to the worker's own socket, and wait for what comes of it."""
    with recorded(label):
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(link.readlink()).startswith("socket:"):
                    os.write(int(link.name), b"\0\0\0\1\xc1")
        time.sleep(PATIENCE_S)

"""The tasks of the kill scenarios; a copy lies beside each project's tasks.py, which it uses."""

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tasks import HERE, note, recorded, recorded_alone, wait_for

from jobsched import Backoff, current_job, task

FOREVER = "1000"  # seconds: nothing of this lives that long


@task
def work(label: str, seconds: float = 0.0) -> None:
    with recorded_alone(label):
        if seconds:
            time.sleep(seconds)


@task(backoff=Backoff(base=0.02, cap=0.05, jitter=0))
def fail_some(label: str, failures: int, seconds: float = 0.0) -> None:
    """Fail so many times before it succeeds."""
    with recorded_alone(label):
        if seconds:
            time.sleep(seconds)
    if current_job().attempt <= failures:  # out here, where the lock is free again
        raise ValueError(label)


@task
def poison(label: str) -> None:
    note("start", label)
    os.kill(os.getpid(), 9)


@task
def stuck_in_c(label: str, how: str) -> None:
    """Be where no Python signal handler runs."""
    with recorded(label):
        if how == "holding the lock":
            ctypes.PyDLL(None).sleep(int(FOREVER))
        elif how == "computing":
            sum(range(1 << 62))
        else:
            while True:  # a signal ends one sleep, and no handler is run before the next
                ctypes.CDLL(None).sleep(int(FOREVER))


@task
def breed(label: str, kind: str, gate: str, *, stays: bool) -> None:
    """Start a process that tries to get away, and write down its pid and when it started.

    When the gate is open it is too late: nothing is started any more.
    """
    if (HERE / gate).exists():
        return
    with recorded(label):
        KINDS[kind](label)
        if stays:
            wait_for(HERE / gate)


def bred(label: str, pid: int) -> None:
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    file = os.open(HERE / "bred", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{label} {pid} {started}\n".encode())
    os.close(file)


def in_background(label: str) -> None:
    bred(label, subprocess.Popen(["sleep", FOREVER]).pid)


def in_own_session(label: str) -> None:
    bred(label, subprocess.Popen(["sleep", FOREVER], start_new_session=True).pid)


def without_environment(label: str) -> None:
    bred(label, subprocess.Popen(["/bin/sleep", FOREVER], start_new_session=True, env={}).pid)


def forked(label: str) -> None:
    child = os.fork()
    if child == 0:
        sleep_and_leave()
    bred(label, child)


def double_forked(label: str) -> None:
    def orphan() -> None:
        os.setsid()
        bred(label, os.getpid())
        sleep_and_leave()

    orphaned(orphan)


def daemonised(label: str) -> None:
    def daemon() -> None:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.closerange(0, 256)
        bred(label, os.getpid())
        os.execv("/bin/sleep", ["sleep", FOREVER])

    orphaned(daemon)


def orphaned(start: Callable[[], None]) -> None:
    """Fork twice, so that what is started has no parent here."""
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                start()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def sleep_and_leave() -> None:
    try:
        time.sleep(int(FOREVER))
    finally:
        os._exit(0)


KINDS: dict[str, Callable[[str], None]] = {
    "background": in_background,
    "own-session": in_own_session,
    "no-environment": without_environment,
    "forked": forked,
    "double-forked": double_forked,
    "daemonised": daemonised,
}

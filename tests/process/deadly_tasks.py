# ruff: noqa: T201 (what a task prints is kept)
"""Tasks that kill their worker at their first attempts, each in its own way."""

import ctypes
import os
import resource
import signal
import time

from recorded_tasks import HERE, note

from jobsched import task

STEP = 1 << 20


def fault() -> None:
    ctypes.string_at(0)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code: int) -> None:
    os._exit(code)


WAYS = {"fault": fault, "kill": kill, "leave-0": lambda: leave(0), "leave-7": lambda: leave(7)}


@task
def die(label: str, way: str, times: int = 1) -> str:
    """Die so many times; while the file `mended-LABEL` is there, never."""
    note("start", label)
    file = HERE / f"died-{label}"
    died = len(file.read_text()) if file.exists() else 0
    if died < times and not (HERE / f"mended-{label}").exists():
        file.write_text("x" * (died + 1))
        print(f"last words of {label}, with password=hunter2")
        WAYS[way]()
    return label


@task
def ask_for_much(label: str, megabytes: int) -> int:
    note("start", label)
    return len(bytes(megabytes << 20))


@task
def grow(label: str, megabytes: int) -> int:
    """Take memory step by step, out of reach of the kernel's limit as some C libraries are."""
    note("start", label)
    file = HERE / f"grew-{label}"
    if file.exists():
        return 0
    file.touch()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    print(f"{label} grows")
    held = []
    for _ in range(megabytes):
        held.append(b"\x01" * STEP)
        time.sleep(0.005)
    time.sleep(60)
    return len(held)

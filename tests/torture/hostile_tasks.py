"""Tasks that break what they can reach; a copy lies beside each project's tasks.py, which it uses.

Each leaves its worker, and the node, in a state that no task should.
"""

import atexit
import contextlib
import ctypes
import mmap
import os
import random
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from tasks import HERE, note

from jobsched import Backoff, dispatch, task
from jobsched.job import State
from jobsched.job_id import new_id
from jobsched.store.base import Outcome, Request
from jobsched.wire import Ask, Done, Look, Ready, frame

LIFETIME = "1000"  # seconds of what is started and left alone
FLOOD_BYTES = 50 << 20
POURED = 20
SOON = Backoff(base=0.01, cap=0.01, jitter=0)


def own_descriptors() -> list[int]:
    """Return the descriptors beyond stdin, stdout and stderr."""
    return [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2]  # noqa: PTH208 (names)


def node_socket() -> socket.socket:
    """Return the worker's own socket to the node."""
    for number in own_descriptors():
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return socket.socket(fileno=os.dup(number))
        except OSError:
            continue
    raise LookupError("no socket among the descriptors")


# Descriptors.


@task
def close_all(label: str) -> None:
    note("start", label)
    os.closerange(3, 4096)


@task
def close_everything(label: str) -> None:
    note("start", label)
    os.closerange(0, 4096)


@task
def scribble(label: str) -> None:
    """Write into every descriptor that may be there."""
    note("start", label)
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
            os.write(number, b"\xffgarbage" * 100)
        except OSError:
            continue


@task
def swap_descriptors(label: str) -> None:
    """Put a file in the place of every socket and pipe."""
    note("start", label)
    handle = os.open(HERE / "swapped", os.O_RDWR | os.O_CREAT, 0o600)
    for number in own_descriptors():
        if number != handle and not stat.S_ISREG(os.fstat(number).st_mode):
            os.dup2(handle, number)


@task
def scramble_board(label: str) -> None:
    """Write nonsense over what the worker shares with its node, its outcomes among it."""
    note("start", label)
    for number in own_descriptors():
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            if "/memfd:" in str(Path(f"/proc/self/fd/{number}").readlink()):
                with mmap.mmap(number, 0) as memory:
                    memory[:] = random.randbytes(len(memory))


# The worker's socket.


@task
def send_garbage(label: str) -> None:
    note("start", label)
    node_socket().sendall(b"\0\0\0\x20" + b"\xc1" * 32)


@task
def send_huge(label: str) -> None:
    note("start", label)
    node_socket().sendall((3 << 30).to_bytes(4, "big") + b"x" * 1000)


@task
def send_half(label: str) -> None:
    """Leave half a frame on the way: what follows is taken for the rest of it."""
    note("start", label)
    node_socket().sendall((3 << 20).to_bytes(4, "big") + b"x" * 10)


@task
def send_nonsense(label: str) -> None:
    """Ask for what no client may ask for."""
    note("start", label)
    node_socket().sendall(frame(Ask(1 << 60, Request(cancel=[b"short"]))))


@task
def forge_outcome(label: str) -> None:
    """Claim that another job has ended."""
    note("start", label)
    forged = Outcome(new_id(), 1, State.COMPLETED, 1, 2)
    node_socket().sendall(frame(Done(forged)) + frame(Ready(1)) + frame(Look(1 << 61, new_id())))


@task
def forge_state(label: str) -> None:
    """Claim with a wrong number that one is in progress."""
    note("start", label)
    forged = Outcome(new_id(), (1 << 64) - 1, State.IN_PROGRESS, -1, (1 << 64) - 1, b"\xc1")
    node_socket().sendall(frame(Done(forged)))


@task
def shut_down_socket(label: str) -> None:
    note("start", label)
    node_socket().shutdown(socket.SHUT_RDWR)


# Processes and threads.


@task
def fork_and_return(label: str) -> str:
    """Return in two processes."""
    note("start", label)
    os.fork()
    return label


@task
def fork_and_linger(label: str) -> str:
    """Leave a copy of the worker behind, with all that it has open."""
    note("start", label)
    if os.fork() == 0:
        time.sleep(float(LIFETIME))
    return label


@task
def leave_session(label: str) -> str:
    """Leave processes behind that are of a session of their own."""
    note("start", label)
    for _ in range(3):
        subprocess.Popen(
            ["setsid", "sh", "-c", f"sleep {LIFETIME} & sleep {LIFETIME}"], start_new_session=True
        )
    return label


@task
def dispatch_from_threads(label: str) -> str:
    """End while threads dispatch."""
    note("start", label)

    def pour(thread: int) -> None:
        for number in range(POURED):
            dispatch("tasks:mark", "mail", args=(f"{label}-{thread}-{number}",))

    for thread in range(4):
        threading.Thread(target=pour, args=(thread,), daemon=True).start()
    return label


@task
def die_in_thread(label: str) -> str:
    note("start", label)
    thread = threading.Thread(target=lambda: sys.exit("a thread's own end"))
    thread.start()
    thread.join()
    return label


# The process as a whole.


@task
def ignore_signals(label: str) -> str:
    note("start", label)
    for number in range(1, signal.NSIG):
        if number not in {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return label


@task
def lower_limits(label: str) -> str:
    note("start", label)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return label


@task
def change_folder(label: str) -> str:
    note("start", label)
    os.chdir("/")
    os.umask(0o077)
    os.environ.clear()
    sys.path.clear()
    return label


@task
def flood(label: str) -> str:
    note("start", label)
    line = "x" * 999 + "\n"
    for _ in range(FLOOD_BYTES // 1000):
        sys.stdout.write(line)
    return label


@task
def close_output(label: str) -> str:
    note("start", label)
    sys.stdout.close()
    sys.stderr = None  # type: ignore[assignment]
    return label


@task
def leave_at_exit(label: str) -> str:
    note("start", label)
    atexit.register(os._exit, 7)
    return label


@task
def exit_politely(label: str) -> None:
    note("start", label)
    sys.exit(3)


@task
def exit_at_once(label: str) -> None:
    note("start", label)
    os._exit(0)


@task
def abort(label: str) -> None:
    note("start", label)
    os.abort()


@task
def segfault(label: str) -> None:
    note("start", label)
    ctypes.string_at(0)


@task
def use_up_processor(label: str) -> None:
    note("start", label)
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + 1))
    while True:
        pass


# Errors and results.


class Unprintable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("not to be shown")

    __repr__ = __str__


class Unloadable:
    """A result that cannot be encoded, or looked at."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("not to be looked at")

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


@task
def raise_unprintable(label: str) -> None:
    note("start", label)
    raise Unprintable


@task
def raise_huge(label: str) -> None:
    note("start", label)
    raise ValueError("\udcff\0\x1b[2J" + "x" * (10 << 20))


@task
def raise_base(label: str) -> None:
    note("start", label)
    raise GeneratorExit(label)


@task
def recurse(label: str) -> None:
    note("start", label)

    def deeper() -> None:
        deeper()

    deeper()


@task
def return_unloadable(label: str) -> object:
    note("start", label)
    return Unloadable()


@task
def return_itself(label: str) -> object:
    note("start", label)
    endless: list[object] = []
    endless.append(endless)
    return endless


@task(max_retries=2, backoff=SOON)
def fail_with_retries(label: str) -> None:
    note("start", label)
    raise OSError(label)


@task(timeout=0.2)
def swallow_timeout(label: str) -> str:
    """Go on for a while, whatever is raised."""
    note("start", label)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            time.sleep(0.05)
        except BaseException:  # noqa: BLE001 (the very point)
            continue
    return label


@task(timeout=0.3)
def run_too_long(label: str) -> None:
    note("start", label)
    time.sleep(30)


@task
def dispatch_too_much(label: str) -> None:
    note("start", label)
    dispatch("tasks:mark", "mail", args=(b"x" * (2 << 20),))

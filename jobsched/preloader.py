"""The preloader: imports the user's modules once, then forks workers, and reaps them.

The node runs no user code, so this child of its does. It is the parent of all workers: it knows
exactly how each one ended, and is the one that kills, so that no signal can reach a process that
merely got the same pid. When the node is gone it kills and reaps everything below it, and leaves.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from jobsched import built_in, fence, linux, output
from jobsched import definition as tasks
from jobsched.api import default_dispatcher
from jobsched.board import Board
from jobsched.channel import Channel
from jobsched.config import CategoryConfig
from jobsched.errors import JobschedError
from jobsched.transport import set_worker_transport
from jobsched.worker import Worker

__all__ = ["Exited", "Fork", "FromPreloader", "Kill", "LoadFailed", "Loaded", "Poke", "Settings", "main"]

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or systemd sends to the whole group: the node decides what it means."""

_PACKET = 1 << 17
_TASKS_PER_PACKET = 400
_FAILED = 1 << 8  # the wait status of exit code 1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the preloader and its workers need to know."""

    directory: str
    run_directory: str
    modules: tuple[str, ...]
    categories: dict[str, CategoryConfig]


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Some of the tasks that the modules define; `more` follow. `forks` says how workers start."""

    tasks: list[str]
    more: bool
    forks: bool


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A module could not be imported."""

    module: str
    traceback: str


class Exited(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A worker is gone: its wait status, its peak memory in KiB, and whether the kernel has killed
    processes for want of memory since the last one that went by SIGKILL.
    """

    worker: int
    status: int
    peak_kib: int
    out_of_memory: bool = False


class Fork(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Start a worker. Its socket, the reading end of its tokens, and its board come with the message."""

    worker: int


class Kill(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End a worker at once, and all that it has started."""

    worker: int


class Poke(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Have a worker look at its board: a job is to be cancelled."""

    worker: int


FromPreloader = Loaded | LoadFailed | Exited

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Fork | Kill | Poke).decode


def main(control: socket.socket, settings: Settings, node: int) -> None:
    """Run the preloader, in the child process that the node has spawned."""
    linux.die_with_parent(node)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    linux.become_subreaper()
    problem = load(settings)
    if problem is not None:
        control.send(_encode(problem))
        return
    gc.collect()
    gc.freeze()  # the pages of what is loaded stay shared with the workers
    # From here on the end of the control socket tells us: a signal would race the sweep.
    linux.outlive_parent()
    if os.getppid() != node:
        return
    _Preloader(control, settings).run()


def load(settings: Settings) -> LoadFailed | None:
    """Import the configured modules; return the first that fails."""
    output.capture()
    sys.path.insert(0, settings.directory)
    tasks.keep_off(built_in.off(settings.modules))  # also where another module imports them
    for module in settings.modules:
        try:
            importlib.import_module(module)
        except BaseException:  # noqa: BLE001 (user code; SystemExit at import is a failure too)
            return LoadFailed(module, traceback.format_exc()[-_PACKET // 2 :])
    importlib.import_module("jobsched.refill")  # the one task that is always on
    with contextlib.suppress(JobschedError):  # while the environment says where: a job may change it
        default_dispatcher()
    return None


def run_worker(channel: Channel, tokens: int, board: Board, worker: int, settings: Settings) -> None:
    """Be a worker: take the fence, then run jobs. In a process of its own."""
    held = fence.take(Path(settings.run_directory), worker)
    set_worker_transport(channel)
    random.seed()
    board.catch_faults()
    Worker(channel, tokens, board, settings.categories).run()
    os.close(held)


class _Preloader:
    def __init__(self, control: socket.socket, settings: Settings) -> None:
        self._control = control
        self._settings = settings
        self._workers: dict[int, int] = {}  # pid → number
        self._condemned: set[int] = set()  # strays that were killed and are not yet reaped
        self._forks = len(list(Path("/proc/self/task").iterdir())) == 1
        self._woken, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._oom_kills = linux.oom_kills()

    def run(self) -> None:
        """Serve the node until it is gone; then leave nothing behind."""
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            self._announce()
            self._serve()
        except OSError:
            pass  # the node cannot be reached: the same as its end
        finally:
            self._sweep_all()

    def _announce(self) -> None:
        names = sorted(tasks.known())
        parts = [names[at : at + _TASKS_PER_PACKET] for at in range(0, len(names), _TASKS_PER_PACKET)] or [[]]
        for place, part in enumerate(parts, 1):
            self._control.send(_encode(Loaded(part, more=place < len(parts), forks=self._forks)))

    def _serve(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._reap()
            if self._control in ready and not self._obey():
                return

    def _obey(self) -> bool:
        data, handles, _, _ = socket.recv_fds(self._control, _PACKET, 3)
        if not data:
            return False
        message = _decode(data)
        if isinstance(message, Fork):
            self._start(message.worker, socket.socket(fileno=handles[0]), *handles[1:])
            return True
        for pid, number in list(self._workers.items()):
            if number == message.worker and isinstance(message, Kill):
                self._kill(pid)
            elif number == message.worker:
                os.kill(pid, signal.SIGUSR1)
        return True

    def _start(self, worker: int, link: socket.socket, tokens: int, board: int) -> None:
        try:
            given = (link.fileno(), tokens, board)
            pid = os.fork() if self._forks else _spawn(worker, given, self._settings)
            if pid == 0:
                self._become_worker(worker, link, tokens, board)
            self._workers[pid] = worker
        except OSError:  # no process to be had now: the others go on
            traceback.print_exc()
            self._control.send(_encode(Exited(worker, _FAILED, 0)))
        finally:
            link.close()
            os.close(tokens)
            os.close(board)

    def _become_worker(self, worker: int, link: socket.socket, tokens: int, board: int) -> None:
        """Turn the fork into a worker. Never returns into the preloader's code."""
        code = 1
        try:
            parent = os.getppid()
            signal.set_wakeup_fd(-1)
            settle(parent)
            self._let_go()
            run_worker(Channel(link), tokens, Board(board), worker, self._settings)
            code = 0
        except BaseException:  # noqa: BLE001 (a worker that cannot start must say why)
            traceback.print_exc()
        finally:
            _leave(code)

    def _let_go(self) -> None:
        """Close, in a fork, what is the preloader's alone; what user modules have opened stays open.

        Nobody else may hold the control socket: its end tells the node that we are gone.
        """
        self._selector.close()
        self._control.close()
        self._woken.close()
        self._wake.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None or pid in self._condemned:
                self._condemned.discard(pid)
                self._kill_strays()
            if worker is not None:
                ran_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and self._ran_out()
                self._control.send(_encode(Exited(worker, status, usage.ru_maxrss, ran_out)))

    def _ran_out(self) -> bool:
        """Say whether the kernel has killed processes for want of memory since this was last asked."""
        before, self._oom_kills = self._oom_kills, linux.oom_kills()
        return self._oom_kills > before

    def _kill(self, pid: int) -> None:
        """Kill a worker's session; what left it is found as a stray when the worker is reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """Kill what dead workers have left: as subreaper we have become its parent.

        What a living worker has put into the background is ours too, and is known by its session.
        What the killed have left in turn comes to us when they are reaped.
        """
        for pid in _children():
            if pid not in self._workers and _session(pid) not in self._workers:
                self._condemned.add(pid)
                self._kill(pid)

    def _sweep_all(self) -> None:
        """Kill and reap until nothing is left: orphans of orphans turn up one by one."""
        while True:
            for pid in _children():
                self._kill(pid)
            try:
                os.wait4(-1, 0)
            except ChildProcessError:
                return


def _leave(code: int) -> NoReturn:
    """End a worker, whatever threads its jobs have left."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def settle(parent: int) -> None:
    """Cut a worker loose from terminal and signals, and tie it to its parent's life."""
    os.setsid()
    linux.die_with_parent(parent)
    for number in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _session(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return 0


def _children() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    return []


def _spawn(worker: int, given: tuple[int, int, int], settings: Settings) -> int:
    """Start a worker as a new program: forking with several threads alive can deadlock it."""
    arguments = [sys.executable, "-m", __name__, *map(str, (worker, *given, os.getpid()))]
    environment = {**os.environ, "JOBSCHED_SETTINGS": msgspec.json.encode(settings).decode()}
    process = subprocess.Popen(arguments, pass_fds=given, env=environment)  # noqa: S603
    process.returncode = 0  # we reap it ourselves, by wait4
    return process.pid


def spawned(arguments: list[str], environment: Mapping[str, Any]) -> None:
    """Be a worker that was started by `_spawn`."""
    worker, link, tokens, board, parent = map(int, arguments)
    settings = msgspec.json.decode(environment["JOBSCHED_SETTINGS"], type=Settings)
    settle(parent)
    channel = Channel(socket.socket(fileno=link))
    set_worker_transport(channel)  # before the modules: they may make a dispatcher
    problem = load(settings)
    if problem is not None:
        sys.exit(problem.traceback)
    code = 1
    try:
        run_worker(channel, tokens, Board(board), worker, settings)
        code = 0
    except BaseException:  # noqa: BLE001 (a worker that cannot go on must say why)
        traceback.print_exc()
    finally:
        _leave(code)


if __name__ == "__main__":
    spawned(sys.argv[1:], os.environ)

"""The preloader as the node sees it: start it, ask it for workers, hear how they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import multiprocess
from multiprocess import resource_tracker

from jobsched import fence, preloader
from jobsched.config import Config
from jobsched.errors import TasksNotLoaded
from jobsched.preloader import Fork, FromPreloader, Kill, Loaded, LoadFailed, Poke, Settings
from jobsched.worker_link import WorkerLink

__all__ = ["PreloaderLink"]

_PACKET = 1 << 17
_LEAVE_S = 5.0


class PreloaderLink:
    """The node's end. Belongs to the node's loop; start it from the main thread, to whose life the
    kernel ties the child's while it imports.
    """

    def __init__(self, config: Config) -> None:
        settings = Settings(
            directory=str(config.directory),
            run_directory=str(config.store.path),
            modules=config.tasks,
            categories=config.categories,
        )
        # Packets, so that a message and the descriptors that go with it cannot come apart.
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromPreloader).decode
        self.tasks: frozenset[str] = frozenset()
        self.forks = True
        self.is_loaded = False
        process = multiprocess.get_context("spawn").Process(
            target=preloader.main, args=(theirs, settings, os.getpid()), name="jobsched-preloader"
        )
        resource_tracker.ensure_running()  # before the mark: a sweep must not take it for a worker
        # Blocked until the child ignores them: a Ctrl-C goes to the whole group.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, preloader.IGNORED)
        try:
            with _marked(config.store.path):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._process = process

    def fileno(self) -> int:
        """Return the control socket's descriptor, for a selector."""
        return self._control.fileno()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return int(self._process.pid)

    def receive(self) -> list[FromPreloader]:
        """Return what it has said. Raises ConnectionResetError when it is gone, TasksNotLoaded when
        a module failed to import.
        """
        messages: list[FromPreloader] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._control.recv(_PACKET, socket.MSG_DONTWAIT)
                if not data:
                    if messages:
                        return messages
                    raise ConnectionResetError
                messages.append(self._note(self._decode(data)))
        return messages

    def _note(self, message: FromPreloader) -> FromPreloader:
        if isinstance(message, LoadFailed):
            raise TasksNotLoaded(message.module, message.traceback)
        if isinstance(message, Loaded):
            self.tasks |= frozenset(message.tasks)
            self.forks = message.forks
            self.is_loaded = not message.more
        return message

    def fork(self, worker: WorkerLink) -> None:
        """Ask for a worker process at the far ends of a link. If it is gone, `receive` says so."""
        data = self._encode(Fork(worker.number))
        with contextlib.suppress(ConnectionError):
            handles = [worker.far_end.fileno(), worker.far_tokens, worker.board.handle]
            socket.send_fds(self._control, [data], handles)
        worker.let_go_of_far_ends()

    def kill(self, worker: int) -> None:
        """Have a worker killed, with all that it has started. An `Exited` follows."""
        with contextlib.suppress(OSError):
            self._control.send(self._encode(Kill(worker)))

    def poke(self, worker: int) -> None:
        """Have a worker look at its board."""
        with contextlib.suppress(OSError):
            self._control.send(self._encode(Poke(worker)))

    def close(self) -> None:
        """End it with all its workers, and wait until it is gone: 5 s, then by force. May come twice."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        if not self.is_loaded:  # it imports, has no workers, and does not listen
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.join(_LEAVE_S)
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.join(_LEAVE_S)
        self._process.close()


@contextlib.contextmanager
def _marked(directory: Path) -> Iterator[None]:
    """Mark the environment of what is started here, for the sweep of a later node."""
    before = os.environ.get(fence.MARKER)
    os.environ[fence.MARKER] = fence.marked(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ[fence.MARKER]
        else:
            os.environ[fence.MARKER] = before

"""One run of a program: its output in bounded memory, and nothing of it left when it has ended.

Everything it starts is in its process group, unless it takes care to leave it; what does is found below
it, or, once orphaned, among the children of the worker's parent, by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["Program", "Tail"]

_CHUNK = 64 << 10
_GRACE_S = 0.3  # from SIGTERM to SIGKILL: less than any default of `kill_after`
_STEP_S = 0.005
_KILL_S = 2.0  # then it is stuck in the kernel
_LAST_CHUNKS = 64  # that the pipes may hold once nobody writes any more
_MARK = "JOBSCHED_PROGRAM"
_HELD = (signal.SIGALRM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)


class Tail:
    """The last bytes of an output, and how many came before them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes. Twice as many as are kept are held, so that few are moved."""
        self._size += len(data)
        self._kept += data
        if len(self._kept) > 2 * self._most:
            self._trim()

    def _trim(self) -> None:
        del self._kept[: max(0, len(self._kept) - self._most)]

    @property
    def cut(self) -> int:
        """How many bytes are lost."""
        return max(0, self._size - self._most)

    @property
    def text(self) -> str:
        """What is kept; bytes that are not UTF-8 are replaced."""
        self._trim()
        return self._kept.decode("utf-8", "replace")


class Program:
    """A program and its output. Belongs to the thread that runs it; serves once."""

    def __init__(self, argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], most: int) -> None:
        self._argv, self._cwd = argv, cwd
        self._mark = uuid.uuid4().hex
        self._env = {**env, _MARK: self._mark}
        self.stdout, self.stderr = Tail(most), Tail(most)
        self._selector = selectors.DefaultSelector()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        self._input = memoryview(b"")

    def run(self, given: bytes | None, timeout_s: float | None) -> int | None:
        """Run it to its end; return its exit code as Popen has it, None when it was ended for its time.

        Whatever it has started is ended too, in each case: asked by SIGTERM, then by force. Raises
        OSError or ValueError when it cannot be started, and what interrupts the job.
        """
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        try:
            with _undisturbed():
                self._start(given)
            while not self._is_over and time.monotonic() < deadline:
                self._pass_on(deadline - time.monotonic())
            in_time = self._is_over
        finally:
            with _undisturbed():
                code = self._end()
        return code if in_time else None

    def _start(self, given: bytes | None) -> None:
        """Start it, in a group of its own and not in a session: an orphan in a session that is no
        worker's is killed when another worker dies.
        """
        self._process = process = subprocess.Popen(  # noqa: S603 (it is what the operator has turned on)
            self._argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        for pipe, tail in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ, tail)
        if process.stdin is not None:
            self._input = memoryview(given or b"")
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)
        # It says when the program has ended, and leaves it unreaped: until then nobody gets its pid.
        self._selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ)

    def _pass_on(self, patience_s: float) -> None:
        """Wait for something to pass on, and do so once."""
        ready = self._selector.select(None if patience_s == float("inf") else max(0.0, patience_s))
        for key, _ in ready:
            pipe = key.fileobj
            if isinstance(pipe, int):
                self._is_over = True
                self._selector.unregister(pipe)
                os.close(pipe)
            elif isinstance(key.data, Tail):
                self._read(pipe, key.data)  # type: ignore[arg-type]
            else:
                self._write(pipe)  # type: ignore[arg-type]

    def _read(self, pipe: IO[bytes], tail: Tail) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(pipe.fileno(), _CHUNK)
            tail.add(data)
            if not data:
                self._hang_up(pipe)

    def _write(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._input = self._input[os.write(pipe.fileno(), self._input[:_CHUNK]) :]
            except BrokenPipeError:  # it does not want to know the rest
                self._input = memoryview(b"")
            if not self._input:
                self._hang_up(pipe)

    def _hang_up(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()

    def _end(self) -> int | None:
        """End what is left of it, take its last output, and return its exit code."""
        if self._process is None:
            self._selector.close()
            return None
        if self._family():
            self._ask_to_end()
        deadline = time.monotonic() + _KILL_S
        known: dict[int, str] = {}  # once their parents are dead nobody else may know them
        while (family := self._alive(known)) and time.monotonic() < deadline:
            self._signal(signal.SIGKILL, family)
            time.sleep(_STEP_S)
        self._signal(signal.SIGKILL, ())
        for _ in range(_LAST_CHUNKS):
            if not self._selector.select(0):
                break
            self._pass_on(0)
        for key in list(self._selector.get_map().values()):
            os.close(key.fd) if isinstance(key.fileobj, int) else key.fileobj.close()  # type: ignore[attr-defined]
        self._selector.close()
        return self._process.poll()

    def _ask_to_end(self) -> None:
        until = time.monotonic() + _GRACE_S
        self._signal(signal.SIGTERM, self._family())
        while self._family() and (rest := until - time.monotonic()) > 0:
            self._pass_on(min(rest, _STEP_S))

    def _signal(self, number: int, family: Iterable[int]) -> None:
        """Send a signal to the group, whose number is kept by the unreaped program, and to the others."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for pid in family:
            if _group(pid) != self._process.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def _alive(self, known: dict[int, str]) -> list[int]:
        """Return who is alive of the family and of those `known`, by pid and birth; note who is new."""
        for pid in self._family():
            known.setdefault(pid, _birth(pid))
        return [pid for pid, birth in known.items() if _is_alive(pid) and _birth(pid) == birth]

    def _family(self) -> list[int]:
        """Return the processes alive that have come from the program, itself included."""
        assert self._process is not None
        mark = f"{_MARK}={self._mark}".encode()
        found = [self._process.pid]
        found += [pid for pid in _children(os.getppid()) if mark in _environment(pid)]
        for pid in found:  # it grows
            found += _children(pid)
        return [pid for pid in found if _is_alive(pid)]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back what would interrupt this, and let it come afterwards: a program must not be started
    and then not be known, nor be left half ended.

    A signal with a handler has its default in a started program, unlike one that is ignored: a worker
    ignores SIGTERM, what it starts must not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: set[int] = set()
    before = {number: signal.signal(number, lambda number, _: noted.add(number)) for number in _HELD}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for held in noted:
            signal.raise_signal(held)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _environment(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def _is_alive(pid: int) -> bool:
    return _stat(pid)[0] not in {"Z", "X"}


def _birth(pid: int) -> str:
    """Return when a process started: no other has its pid and that."""
    return _stat(pid)[-1]


def _stat(pid: int) -> list[str]:
    """Return from the state to the start of what the kernel says of a process: field 3 to 22 of proc(5)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()[:20]
    return ["X"]


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0

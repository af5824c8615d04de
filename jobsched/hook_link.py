"""The hooks' process as the node sees it: started, told of events, started again when it dies, and waited
for at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from jobsched import hook_process, wire
from jobsched.config import Config
from jobsched.errors import WireError
from jobsched.framed import FramedSocket
from jobsched.loop import Loop

__all__ = ["Hooks"]

log = logging.getLogger(__name__)

_BACKOFF_S = 0.1
_BACKOFF_CAP_S = 30.0
_STEADY_S = 10.0  # a process that has lived so long is none that dies at once
_STEP_S = 0.05
_NOBODY = 1 << 40  # bytes that wait, so to say, while there is no process to take them


class _Link(FramedSocket[wire.Ready]):
    """One process of the hooks, and the socket to it."""

    def __init__(self, config: Config, blocked: Callable[[_Link], None]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        super().__init__(ours, "the hooks' process", wire.Ready, blocked)
        words = [str(theirs.fileno()), str(os.getpid()), str(config.directory), *config.hooks]
        command = [sys.executable, "-m", hook_process.__name__, *words]
        # Blocked until the child ignores them: a Ctrl-C goes to the whole group.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, hook_process.IGNORED)
        try:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter)
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        except OSError:
            self.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def finish(self, deadline: float, is_hurried: Callable[[], bool]) -> bool:
        """Send what waits and hang up; say whether the process has ended before a monotonic time."""
        poll = select.poll()
        poll.register(self, select.POLLIN | select.POLLHUP)
        is_told = False
        while time.monotonic() < deadline and not is_hurried():
            if not is_told and not self.has_unsent:
                is_told = True
                self.hang_up()
            if is_told and self.process.poll() is not None:
                return True
            if not is_told:
                poll.modify(self, select.POLLOUT)
            poll.poll(_STEP_S * 1000)
            self.flush()
        return False

    def hang_up(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def end(self) -> int:
        """End the process by force if it is still there; return its exit code."""
        self.process.kill()
        code = self.process.wait()
        self.close()
        return code


class Hooks:
    """Keeps the process of the hooks alive; whoever tells it of events need not know whether it is.
    Belongs to the node's loop; start it from the main thread, to whose life the kernel ties the child's.
    """

    def __init__(self, config: Config, loop: Loop) -> None:
        self._config = config
        self._loop = loop
        self._link: _Link | None = None
        self._started_at = 0.0  # monotonic
        self._start_at = 0.0  # likewise
        self._deaths = 0  # in a row

    # As whoever tells of events sees it.

    @property
    def unsent(self) -> int:
        """How many bytes wait for the process to take them."""
        return _NOBODY if self._link is None else self._link.unsent

    @property
    def has_unsent(self) -> bool:
        """Whether anything waits."""
        return self._link is not None and self._link.has_unsent

    def fileno(self) -> int:
        """Return the descriptor of the socket to it, -1 where there is none."""
        return -1 if self._link is None else self._link.fileno()

    def send(self, message: msgspec.Struct) -> None:
        """Send a message; lost where there is no process."""
        if self._link is not None:
            self._link.send(message)

    def flush(self) -> None:
        """Send what waits, as far as it fits."""
        if self._link is not None:
            self._link.flush()

    # Its life.

    def step(self, now: float) -> None:
        """Start the process if it is time."""
        if self._link is not None or now < self._start_at:
            return
        try:
            self._link = _Link(self._config, self._loop.await_room)
        except OSError as error:
            self._put_off(now, f"cannot be started: {error}")
            return
        self._started_at = now
        self._loop.watch(self._link, self._on_link)

    def timeout_s(self, now: float) -> float:
        """Return the seconds until it is to be started; infinite while it runs."""
        return float("inf") if self._link is not None else max(0.0, self._start_at - now)

    def _on_link(self) -> None:
        assert self._link is not None
        try:
            for ready in self._link.arrived():
                log.info("hooks are ready, pid %d: %s", ready.pid, ", ".join(self._config.hooks))
        except (OSError, WireError):
            link, self._link = self._link, None
            self._loop.forget(link)
            code = link.end()
            now = time.monotonic()
            self._deaths = 0 if now - self._started_at > _STEADY_S else self._deaths
            self._put_off(now, f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}")

    def _put_off(self, now: float, why: str) -> None:
        wait_s = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** min(self._deaths, 16))
        self._deaths += 1
        self._start_at = now + wait_s
        log.warning("the hooks' process %s; started again in %g s", why, wait_s)

    def close(self, deadline: float, is_hurried: Callable[[], bool]) -> None:
        """Let the process take what it was told, until a monotonic time, and end it. May come twice."""
        link, self._link = self._link, None
        if link is None:
            return
        if not link.finish(deadline, is_hurried):
            log.warning("the hooks' process has not taken all events in time: it is ended")
        link.end()

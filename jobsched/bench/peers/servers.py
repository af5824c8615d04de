"""Servers that others need, each started for one measurement, on loopback, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jobsched.bench.peers.processes import Started, clean_environment, started
from jobsched.errors import JobschedError

__all__ = ["URL", "NoServer", "Served", "missing", "postgres", "redis"]

URL = "JOBSCHED_BENCH_URL"
"""Environment variable: where the server is."""

_READY_S = 30.0
_STEP_S = 0.02
_TRIES = 3
_UNPRIVILEGED = ("postgres", "nobody")
_BINARIES = {"redis": ("redis-server",), "postgres": ("postgres", "initdb")}


class NoServer(JobschedError):
    """A server could not be started."""


class Served(NamedTuple):
    """Where a library finds what it needs beside its workers, and the server if there is one."""

    url: str
    server: Started | None = None


def missing(server: str | None) -> str | None:
    """Return why a server cannot be had here, None if it can."""
    absent = [name for name in _BINARIES.get(server or "", ()) if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} not on the PATH"
    if server == "postgres" and os.geteuid() == 0 and _unprivileged() is None:
        return "postgres does not run as root, and there is no user postgres or nobody to run it"
    return None


def _unprivileged() -> str | None:
    """Return a user that is not root."""
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    return None


@contextlib.contextmanager
def redis(folder: Path, appendfsync: str) -> Iterator[Served]:
    """Run a Redis whose append-only file is flushed `always`, `everysec` or by the system (`no`)."""
    password = secrets.token_hex(16)

    def start(port: int) -> Started:
        file = folder / "redis.conf"
        file.touch(mode=0o600)
        file.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\nsave ''\n"
            f"appendonly yes\nappendfsync {appendfsync}\n"
        )
        return started(["redis-server", str(file)], folder, clean_environment(), "redis")

    with _serving(start, lambda log: "Ready to accept connections" in log) as (port, server):
        yield Served(f"redis://:{password}@127.0.0.1:{port}/0", server)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Served]:
    """Run a PostgreSQL with its own defaults: every commit is flushed. Root gives it to another user."""
    user = _unprivileged() if os.geteuid() == 0 else None
    password = secrets.token_hex(16)
    home, secret = folder / "postgres", folder / "password"
    home.mkdir(mode=0o700)
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        folder.chmod(0o711)  # it is ours; the user only passes through
        shutil.chown(home, user)
        shutil.chown(secret, user)
    _initialize(home, secret, user)

    def start(port: int) -> Started:
        command = ["postgres", "-D", str(home), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories="]
        return started(command, folder, clean_environment(), "postgres", user=user, cwd=home)

    with _serving(start, lambda log: "database system is ready to accept connections" in log) as found:
        yield Served(f"postgresql://bench:{password}@127.0.0.1:{found[0]}/postgres", found[1])


def _initialize(home: Path, secret: Path, user: str | None) -> None:
    command = ["initdb", "-D", str(home), "-U", "bench", "-A", "scram-sha-256", "--pwfile", str(secret)]
    ended = subprocess.run(  # noqa: S603
        [shutil.which("initdb") or "initdb", *command[1:], "--no-sync", "--locale=C", "--encoding=UTF8"],
        env=clean_environment(),
        cwd=home,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        timeout=_READY_S,
        check=False,
    )
    if ended.returncode:
        raise NoServer(f"initdb: {(ended.stderr.strip().splitlines() or ['failed'])[-1]}")


@contextlib.contextmanager
def _serving(
    start: Callable[[int], Started], is_ready: Callable[[str], bool]
) -> Iterator[tuple[int, Started]]:
    """Start a server on a free port, and again on another one if somebody was faster; end it after."""
    for _ in range(_TRIES):
        port = _free_port()
        server = start(port)
        try:
            if _wait(server, is_ready):
                yield port, server
                return
        finally:
            server.end()
    raise NoServer(f"{server.name} does not start: {(server.told().splitlines() or ['it says nothing'])[-1]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Started, is_ready: Callable[[str], bool]) -> bool:
    """Wait until a server says that it is ready; return whether it has."""
    deadline = time.monotonic() + _READY_S
    while server.is_alive and time.monotonic() < deadline:
        if is_ready(server.told()):
            return True
        time.sleep(_STEP_S)
    return False

"""Processes that the comparison starts, and ends in any case."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

import jobsched
from jobsched.linux import die_with_parent

__all__ = ["Started", "clean_environment", "started"]

_CPU_FIELDS = 4  # user, system, and both of children that have ended
_END_S = 10.0
_TOLD_BYTES = 20_000


class Started:
    """A process in a session of its own, whose output goes to a file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def cpu_s(self) -> float:
        """Return the processor time that it and its children have taken, those that have ended too."""
        try:
            own = psutil.Process(self._process.pid)
            times: list[Any] = [part.cpu_times() for part in (own, *own.children(recursive=True))]
        except psutil.NoSuchProcess:
            return 0.0
        return float(sum(sum(part[:_CPU_FIELDS]) for part in times))

    def told(self) -> str:
        """Return the end of its output."""
        return self._log.read_text(errors="replace")[-_TOLD_BYTES:]

    def end(self) -> None:
        """End it and its children: kindly, and after 10 s by force."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT if self.name == "postgres" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def started(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    name: str,
    *,
    user: str | None = None,
    cwd: Path | None = None,
) -> Started:
    """Start a process, as another user if one is named. It dies with this one."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            [shutil.which(command[0]) or command[0], *command[1:]],
            cwd=cwd or folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 (no other threads)
        )
    return Started(name, process, log)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return an environment that says where this package is, and nothing else of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBSCHED")}
    paths = [str(Path(jobsched.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | variables

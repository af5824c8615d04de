"""The demo's load: jobs that come in waves, so that the work shifts between the categories."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jobsched.api import Task
from jobsched.config import Config
from jobsched.demo import tasks
from jobsched.dispatcher import Dispatcher
from jobsched.job import State
from jobsched.store.base import JobStore

__all__ = ["TASKS", "Feeder", "Wave", "inputs", "waves"]

TASKS = (tasks.checksum, tasks.compress, tasks.index)

_LOOK_S = 0.05
_OPEN = (State.SCHEDULED, State.PENDING, State.IN_PROGRESS)


class Wave(NamedTuple):
    """Jobs dispatched together, once `after` of all jobs dispatched before have ended."""

    task: Task[[str], dict[str, object]]
    files: Sequence[Path]
    after: float


def inputs(task: Task[[str], dict[str, object]], files: Sequence[Path]) -> list[Path]:
    """Return the files that a task is for: the index takes sources only."""
    return [path for path in files if path.suffix == ".py"] if task is tasks.index else list(files)


def waves(files: Sequence[Path]) -> list[Wave]:
    """Return the waves in which the files come: each file once for each of its tasks."""
    checksums, packs, sources = (inputs(task, files) for task in TASKS)
    half, middle = len(checksums) // 2, len(sources) // 2
    return [
        Wave(tasks.compress, packs, 0.0),
        Wave(tasks.checksum, checksums[:half], 0.10),
        Wave(tasks.index, sources[:middle], 0.40),
        Wave(tasks.checksum, checksums[half:], 0.60),
        Wave(tasks.index, sources[middle:], 0.75),
    ]


class Feeder:
    """Dispatches the waves from a thread of its own, and says when all their jobs have ended.

    `is_done` and `error` are the thread's; others read them after `close`.
    """

    def __init__(
        self, config: Config, store: JobStore, load: Sequence[Wave], on_end: Callable[[], None]
    ) -> None:
        self._dispatcher = Dispatcher(config)
        self._store = store
        self._load = load
        self._on_end = on_end
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobsched-demo", daemon=True)
        self.is_done = False
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin with the first wave."""
        self._thread.start()

    def close(self) -> None:
        """Dispatch no more; wait for the thread. Raises what went wrong in it."""
        self._is_closing.set()
        self._thread.join()
        self._dispatcher.close()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self.is_done = self._feed()
        except Exception as error:  # noqa: BLE001 (raised again by close)
            self.error = error
        finally:
            self._on_end()

    def _feed(self) -> bool:
        """Dispatch every wave in its time; return whether all the jobs have ended."""
        sent = 0
        for wave in self._load:
            if not self._await_ended(wave.after * sent):
                return False
            self._dispatcher.dispatch_each(wave.task, [(str(path),) for path in wave.files])
            sent += len(wave.files)
        return self._await_ended(sent)

    def _await_ended(self, count: float) -> bool:
        """Wait until so many jobs have ended, or false: the demo is closing."""
        while self._ended() < count:
            if self._is_closing.wait(_LOOK_S):
                return False
        return not self._is_closing.is_set()

    def _ended(self) -> int:
        """Count the jobs that will not run again by themselves."""
        return sum(
            sum(stats.counts) - sum(stats[state] for state in _OPEN) for stats in self._store.stats().values()
        )

"""What becomes of a load: its jobs' ends, and the node's queues and workers while it lasts."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import JobschedError
from jobsched.job import State, is_final
from jobsched.node_connection import NodeConnection
from jobsched.report import CategoryReport, NodeReport
from jobsched.store.base import StoredJob
from jobsched.store.lmdb import open_store

__all__ = ["CategoryNow", "LoadWatch", "Progress", "Sample", "Sent"]

_EVERY_S = 0.25
_HASTY_S = 0.05  # between two looks once all has been dispatched
_UNENDED = 300  # jobs of a category that are found not to have ended: then the rest is left alone
_PATIENCE_S = 5.0
_MOST_SAMPLES = 1200
_WAITING = (State.SCHEDULED, State.PENDING, State.IN_PROGRESS)


class Sent(NamedTuple):
    """An accepted job, and when it was to be dispatched, in UTC microseconds."""

    id: bytes
    category: str
    wanted_at: int


class CategoryNow(NamedTuple):
    """A category of the node at a moment; jobs of others are among those that wait."""

    waiting: int
    workers: int
    busy: int


class Sample(NamedTuple):
    """The node so many seconds after the start of the load."""

    t_s: float
    categories: dict[str, CategoryNow]


class Progress(NamedTuple):
    """How far a load is. The counters are by category; `node` is None until it has answered."""

    elapsed_s: float
    dispatched: Counter[str]
    refused: Counter[str]
    completed: Counter[str]
    failed: Counter[str]
    node: Sample | None


class LoadWatch:
    """Watches from a thread of its own, so that looking does not delay the dispatches.

    `dispatched`, `refused` and `expect` are the sender's, all other fields the thread's; they are
    read when it has ended, and by `on_progress`, which the thread calls.
    """

    def __init__(
        self, config: Config, categories: Iterable[str], on_progress: Callable[[Progress], None]
    ) -> None:
        self.dispatched: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.waits_ms: dict[str, list[float]] = {}
        self.samples: list[Sample] = []
        self._config = config
        self._on_progress = on_progress
        # By category, in the order of dispatch: the sender appends, the thread takes from the left.
        self._open: dict[str, deque[Sent]] = {name: deque() for name in categories}
        self._all_sent = threading.Event()
        self._all_ended = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._connection: NodeConnection | None = None
        self._thread = threading.Thread(target=self._run, name="jobsched-load", daemon=True)
        self._began = time.monotonic()

    # The sender's.

    def expect(self, sent: Sent) -> None:
        """Take note of an accepted job."""
        self._open[sent.category].append(sent)

    def wait(self, seconds: float) -> None:
        """Wait until all accepted jobs have ended, so many seconds at most. Raises what went wrong."""
        self._all_sent.set()
        self._all_ended.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._error is not None:
            raise self._error

    @property
    def unended(self) -> list[Sent]:
        """The accepted jobs that have not ended, once the block is left."""
        return [sent for waiting in self._open.values() for sent in waiting]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    # The thread's.

    def _run(self) -> None:
        try:
            with self._reading() as look:
                while not self._over.is_set() and not self._is_done():
                    self._observe(look)
                    (self._over if self._all_sent.is_set() else self._all_sent).wait(self._pause_s())
                self._observe(look)
        except Exception as error:  # noqa: BLE001 (raised again by check)
            self._error = error
        finally:
            self._all_ended.set()
            if self._connection is not None:
                self._connection.close()

    def _is_done(self) -> bool:
        return self._all_sent.is_set() and not any(self._open.values())

    def _pause_s(self) -> float:
        return _HASTY_S if self._all_sent.is_set() else _EVERY_S

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Callable[[bytes], StoredJob | None]]:
        """Give a function that returns a job: from the store's file, or else from the node."""
        if self._config.store.kind == "lmdb":
            with contextlib.closing(open_store(self._config.store.path)) as store:
                yield store.get
        else:
            with contextlib.closing(Dispatcher(self._config)) as dispatcher:
                yield dispatcher.look

    def _observe(self, look: Callable[[bytes], StoredJob | None]) -> None:
        self._sample()
        for waiting in self._open.values():
            self._look_at(waiting, look)
        self._on_progress(
            Progress(
                time.monotonic() - self._began,
                self.dispatched.copy(),
                self.refused.copy(),
                self.completed.copy(),
                self.failed.copy(),
                self.samples[-1] if self.samples else None,
            )
        )

    def _sample(self) -> None:
        """Ask the node how it is doing. One that does not answer now may do so the next time."""
        t_s = time.monotonic() - self._began
        if self.samples and t_s - self.samples[-1].t_s < _EVERY_S * 0.9:
            return
        try:
            if self._connection is None:
                self._connection = NodeConnection(self._config.store.path, _PATIENCE_S)
            report = self._connection.survey()
        except (OSError, JobschedError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return
        self.samples.append(_sample(t_s, report))
        if len(self.samples) > _MOST_SAMPLES:
            del self.samples[::2]  # of a long load every other one says as much

    def _look_at(self, waiting: deque[Sent], look: Callable[[bytes], StoredJob | None]) -> None:
        """Take the jobs that have ended. They end nearly in their order: no need to look at all."""
        unended: list[Sent] = []
        for _ in range(len(waiting)):
            sent = waiting.popleft()
            job = look(sent.id)
            if job is not None and is_final(job.status.state):
                self._end(sent, job)
                continue
            unended.append(sent)
            if len(unended) >= _UNENDED:
                break
        waiting.extendleft(reversed(unended))

    def _end(self, sent: Sent, job: StoredJob) -> None:
        is_good = job.status.state is State.COMPLETED
        (self.completed if is_good else self.failed)[sent.category] += 1
        if job.status.started_at:
            wait_ms = max(0, job.status.started_at - sent.wanted_at) / 1000
            self.waits_ms.setdefault(sent.category, []).append(wait_ms)


def _sample(t_s: float, report: NodeReport) -> Sample:
    return Sample(round(t_s, 3), {name: _now(row) for name, row in report.categories.items()})


def _now(row: CategoryReport) -> CategoryNow:
    return CategoryNow(sum(row.count(state) for state in _WAITING), row.workers, row.busy)

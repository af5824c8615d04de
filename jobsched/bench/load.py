"""`bench load`: a generated load, and what a node makes of it.

The load does not wait for the node: a job is dispatched when it is due, however the ones before it
are doing. Its wait counts from when it was to be dispatched, so a node (or a generator) that falls
behind shows in the waits.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jobsched.bench.load_ground import own_node, running_node
from jobsched.bench.load_plan import Planned
from jobsched.bench.load_watch import LoadWatch, Progress, Sent
from jobsched.bench.report import waits
from jobsched.bench.tasks import work
from jobsched.clock import MICROSECONDS, SystemClock
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import rebuilt
from jobsched.job_id import format_id
from jobsched.prepared import new_job
from jobsched.store.base import Refused, Request
from jobsched.transport import transport_for

__all__ = ["Load", "run_load"]

_TOGETHER = 256  # requests that are sent before the first answer is read
_NAP_S = 0.5  # so that a watch that has failed is noticed
_CANCELLED_TOGETHER = 1000


class Load(NamedTuple):
    """A load and where it goes.

    `plan` are its jobs in the order of their arrival, over `span_s` seconds. `config` is None for
    categories and nothing else; `is_running` says that its node runs and takes the load, else one of
    our own with the same settings does, with so many `workers`. `settle_s` is how long to wait for
    the last jobs to end.
    """

    plan: Sequence[Planned]
    span_s: float
    config: Config | None
    is_running: bool
    workers: int | None
    settle_s: float


def run_load(load: Load, on_progress: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
    """Put a load on a node; return its figures.

    `dispatched`, `accepted`, `refused` (and `refused_as` by error), `completed`, `failed`, `unended`;
    `rate_wanted` and `rate_reached` in jobs a second; `p50_ms` ... `max_ms` from when a job was to be
    dispatched to its start; `ack_...` from its dispatch to the answer; `late_p99_ms` is how late the
    generator itself was; `categories` has most of them by category; `samples` are the node's queues and
    workers over time.
    """
    categories = list(dict.fromkeys(job.category for job in load.plan))
    place = (
        running_node(load.config, categories[0])
        if load.is_running and load.config is not None
        else own_node(load.config, categories, load.workers)
    )
    with place as config, contextlib.closing(_Sender(config)) as sender:
        watch = LoadWatch(config, categories, on_progress)
        try:
            with watch:
                sender.send_all(load.plan, watch)
                watch.wait(load.settle_s)
        finally:
            if load.is_running:
                sender.cancel(watch.unended)
    return _figures(load, categories, sender, watch)


class _Sender:
    """Dispatches each job when it is due. Those that fell due together travel together, each in a
    request of its own, as if so many clients had sent them.
    """

    def __init__(self, config: Config) -> None:
        store = config.store
        self._dispatcher = Dispatcher(config)
        self._transport = transport_for(
            store.path, durable=store.kind == "lmdb", quota_bytes=config.quota_bytes
        )
        self._limits = {
            name: {name: settings.max_pending}
            for name, settings in config.categories.items()
            if settings.max_pending is not None
        }
        self._clock = SystemClock()
        self.refused_as: Counter[str] = Counter()
        self.ack_ms: list[float] = []
        self.late_ms: list[float] = []
        self.seconds = 0.0

    def close(self) -> None:
        self._dispatcher.close()
        close = getattr(self._transport, "close", None)
        if close is not None:
            close()

    def send_all(self, plan: Sequence[Planned], watch: LoadWatch) -> None:
        """Dispatch every job in its time. Raises what the watch has met."""
        began, began_at = time.monotonic(), self._clock.now()
        place = 0
        while place < len(plan):
            watch.check()
            elapsed = time.monotonic() - began
            count = _due(plan, place, elapsed)
            if not count:
                time.sleep(min(plan[place].at_s - elapsed, _NAP_S))
                continue
            self._send(plan[place : place + count], began, began_at, watch)
            place += count
        self.seconds = time.monotonic() - began

    def _send(self, due: Sequence[Planned], began: float, began_at: int, watch: LoadWatch) -> None:
        now = self._clock.now()
        prepared = [
            self._dispatcher.prepare(work, job.category, args=(job.run_s, job.fails), max_retries=0)
            for job in due
        ]
        requests = [
            Request(jobs=[new_job(job, now)], max_pending=self._limits.get(job.category, {}))
            for job in prepared
        ]
        sent = time.monotonic()
        replies = self._transport.exchange(requests)
        ack_ms = (time.monotonic() - sent) * 1000
        for planned, job, reply in zip(due, prepared, replies, strict=True):
            watch.dispatched[job.category] += 1
            self.late_ms.append((sent - began - planned.at_s) * 1000)
            self.ack_ms.append(ack_ms)
            if isinstance(reply, Refused):
                if reply.kind == "UnknownTask":
                    raise rebuilt(reply.kind, reply.reason)
                watch.refused[job.category] += 1
                self.refused_as[reply.kind] += 1
            else:
                watch.expect(Sent(job.id, job.category, began_at + int(planned.at_s * MICROSECONDS)))

    def cancel(self, jobs: Sequence[Sent]) -> None:
        """Leave nothing of the load behind in a node that is not ours."""
        for first in range(0, len(jobs), _CANCELLED_TOGETHER):
            part = jobs[first : first + _CANCELLED_TOGETHER]
            self._dispatcher.cancel([format_id(sent.id) for sent in part])


def _due(plan: Sequence[Planned], place: int, elapsed: float) -> int:
    """Return how many jobs from a place on are due, as many as go together at most."""
    count = 0
    while count < _TOGETHER and place + count < len(plan) and plan[place + count].at_s <= elapsed:
        count += 1
    return count


def _figures(load: Load, categories: Sequence[str], sender: _Sender, watch: LoadWatch) -> dict[str, Any]:
    unended = Counter(sent.category for sent in watch.unended)
    planned = Counter(job.category for job in load.plan)
    rows = {name: _category(name, planned, unended, watch) for name in categories}
    counts = {key: sum(row[key] for row in rows.values()) for key in _COUNTS}
    every_wait = [wait for waits_ms in watch.waits_ms.values() for wait in waits_ms]
    return {
        **counts,
        "refused_as": dict(sender.refused_as),
        "seconds": round(sender.seconds, 3),
        "rate_wanted": round(len(load.plan) / load.span_s, 2),
        "rate_reached": round(counts["accepted"] / max(load.span_s, sender.seconds), 2),
        **waits(every_wait),
        **waits(sender.ack_ms, "ack_"),
        "late_p99_ms": waits(sender.late_ms).get("p99_ms", 0.0),
        "categories": rows,
        "samples": [_sample(sample.t_s, sample.categories) for sample in watch.samples],
    }


_COUNTS = ("planned", "dispatched", "accepted", "refused", "completed", "failed", "unended")


def _category(
    name: str, planned: Mapping[str, int], unended: Mapping[str, int], watch: LoadWatch
) -> dict[str, Any]:
    return {
        "planned": planned[name],
        "dispatched": watch.dispatched[name],
        "accepted": watch.dispatched[name] - watch.refused[name],
        "refused": watch.refused[name],
        "completed": watch.completed[name],
        "failed": watch.failed[name],
        "unended": unended[name],
        **waits(watch.waits_ms.get(name, [])),
    }


def _sample(t_s: float, categories: Mapping[str, Any]) -> dict[str, Any]:
    return {"t_s": t_s, **{name: list(now) for name, now in categories.items()}}

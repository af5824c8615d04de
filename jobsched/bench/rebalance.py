"""`bench rebalance`: how soon the workers follow a step in the load, and what a move costs."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

from jobsched.bench.ground import await_answer, await_completed, ground, node, reading
from jobsched.bench.report import Tell, silent
from jobsched.bench.runs import Run, ended_runs, gaps_ms
from jobsched.bench.tasks import rest
from jobsched.config import Config
from jobsched.dispatcher import Dispatcher
from jobsched.errors import InvalidOption, JobschedError
from jobsched.job import State
from jobsched.node_connection import NodeConnection
from jobsched.report import Decision
from jobsched.store.base import KEPT_DECISIONS

__all__ = ["ideal_split", "is_near", "reached_at", "run_rebalance"]

_CATEGORIES = """\
[balancer]
every = "{every_ms:.0f}ms"

[categories.old]

[categories.new]
"""
_NEAR = 0.9  # of the workers where they belong
_WARM_S = 1.0  # of jobs that have run before the step
_LOAD_S = 8.0  # of jobs that wait after it
_LIMIT_S = 60.0
_STEP_S = 0.02


def run_rebalance(
    workers: int = 10, every_s: float = 1.0, ratio: int = 4, sleep_s: float = 0.02, *, tell: Tell = silent
) -> dict[str, float | int]:
    """Have `ratio` times as many jobs wait in one category as in another of the same priority; then
    queue so many in the other, in one commit, that it is the other way round.

    Returns `reached_ms`, from the call that queues them until 90 % of the workers run jobs where they
    belong; of which `queued_ms` are the call's, and the rest is `ticks` intervals of the balancer, begun
    ones counted; how many workers it moved meanwhile, `moves`; the time between two jobs of a worker that
    stays, `gap_ms`, and of one that changes its category, `move_gap_ms` (medians); and `move_cost_ms`,
    the difference.
    """
    if sleep_s <= 0:
        raise InvalidOption(f"--sleep: jobs must run for longer than 0 s, got {sleep_s:g} s")
    with ground(workers, _CATEGORIES.format(every_ms=every_s * 1000)) as config:
        dispatcher = Dispatcher(config)
        rate = workers / sleep_s
        few = math.ceil((_WARM_S + _LOAD_S / ratio) * rate / (ratio + 1))
        _queue(dispatcher, {"old": few * ratio, "new": few}, sleep_s)
        with node(config) as process:
            connection = await_answer(config, process)
            await_completed(config, round(_WARM_S * rate))
            waiting = _backlog(connection)
            since = time.time_ns() // 1000
            _queue(dispatcher, {"new": max(1, waiting["old"] * ratio - waiting["new"])}, sleep_s)
            queued = time.time_ns() // 1000
            ideal = ideal_split(workers, _backlog(connection))
            _await_split(connection, ideal, tell)
            time.sleep(2 * sleep_s + every_s / 2)  # those jobs end, and some more after them
            connection.close()
        dispatcher.close()
        runs = ended_runs(config)
        decisions = _decisions(config)
    reached = reached_at(runs, ideal, since)
    if reached is None:
        raise JobschedError(f"the workers have not come near {ideal} within {_LIMIT_S:g} s")
    stayed, moved = (statistics.median(gaps) if gaps else 0.0 for gaps in gaps_ms(runs, since))
    return {
        "reached_ms": round((reached - since) / 1000, 1),
        "queued_ms": round((queued - since) / 1000, 1),
        "ticks": max(1, math.ceil((reached - queued) / 1e6 / every_s)),
        "moves": sum(decision.moves for decision in decisions if since <= decision.at <= reached),
        "gap_ms": round(stayed, 3),
        "move_gap_ms": round(moved, 3),
        "move_cost_ms": round(moved - stayed, 3),
    }


def _queue(dispatcher: Dispatcher, counts: Mapping[str, int], sleep_s: float) -> None:
    """Queue jobs that sleep, all in one commit."""
    task = partial(rest, sleep_s)
    dispatcher.dispatch_many(
        dispatcher.prepare(task, name) for name, count in counts.items() for _ in range(count)
    )


def _backlog(connection: NodeConnection) -> dict[str, int]:
    """Return how many jobs each category has that wait or run."""
    categories = connection.survey().categories
    return {
        name: report.counts[State.PENDING] + report.counts[State.IN_PROGRESS]
        for name, report in categories.items()
    }


def _await_split(connection: NodeConnection, ideal: Mapping[str, float], tell: Tell) -> None:
    """Wait until the workers are assigned as they should be. Raises JobschedError after 60 s."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        assigned = {name: report.busy for name, report in connection.survey().categories.items()}
        tell("workers", assigned["new"], round(ideal["new"]))
        if is_near(assigned, ideal):
            return
        if time.monotonic() > deadline:
            raise JobschedError(f"the workers are at {assigned} after {_LIMIT_S:g} s, expected {ideal}")
        time.sleep(_STEP_S)


def _decisions(config: Config) -> list[Decision]:
    with reading(config) as store:
        return store.decisions(KEPT_DECISIONS)


def ideal_split(workers: int, backlog: Mapping[str, int]) -> dict[str, float]:
    """Return how many workers each category should have, by its share of the jobs."""
    whole = max(1, sum(backlog.values()))
    return {name: workers * count / whole for name, count in backlog.items()}


def is_near(split: Mapping[str, float], ideal: Mapping[str, float]) -> bool:
    """Say whether 90 % of the workers are where they should be."""
    right = sum(min(split.get(name, 0), count) for name, count in ideal.items())
    return right >= _NEAR * sum(ideal.values())


def reached_at(runs: Iterable[Run], ideal: Mapping[str, float], since: int) -> int | None:
    """Return when the workers were near the ideal split first, each where its last job is from, at or
    after an instant (UTC microseconds); None if they never were.
    """
    serving: dict[int, str] = {}
    at = since
    for run in sorted(runs, key=lambda run: run.started_at):
        if run.started_at > since and is_near(Counter(serving.values()), ideal):
            return at
        serving[run.worker] = run.category
        at = max(since, run.started_at)
    return at if is_near(Counter(serving.values()), ideal) else None

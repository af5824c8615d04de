"""`bench scale`: whether a long queue makes a node slow to start, large, or slow at its work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil

from jobsched.bench.drain import queue_jobs
from jobsched.bench.ground import await_answer, await_completed, ground, node
from jobsched.bench.report import Tell, silent
from jobsched.bench.runs import ended_runs
from jobsched.config import Config

__all__ = ["run_scale"]

_DRAIN_S = 120.0


def run_scale(
    sizes: Sequence[int] = (10_000, 100_000, 1_000_000),
    drained: int = 10_000,
    workers: int = 2,
    *,
    tell: Tell = silent,
) -> dict[str, dict[str, float | int]]:
    """Queue so many no-op jobs, start a node, and let it run `drained` of them; for each of the sizes,
    the smallest first.

    Returns for each, as `queued_10000`: `enqueue_jobs_per_s`; `start_ms`, from the node's launch
    until it answers; `private_mb`, the most memory that it had for itself meanwhile, without the
    store's file, which the system caches; `file_mb`; `jobs_per_s`; and `of_smallest`, that rate
    as a share of the one at the smallest size.
    """
    figures: dict[str, dict[str, float | int]] = {}
    smallest = 0.0
    for size in sorted(sizes):
        measured = _at_size(size, min(drained, size), workers, tell)
        smallest = smallest or measured["jobs_per_s"]
        figures[f"queued_{size}"] = {**measured, "of_smallest": round(measured["jobs_per_s"] / smallest, 3)}
    return figures


def _at_size(size: int, drained: int, workers: int, tell: Tell) -> dict[str, float | int]:
    with ground(workers) as config:
        began = time.perf_counter()
        queue_jobs(config, size, tell=tell)
        enqueued = time.perf_counter() - began
        launched = time.perf_counter()
        with node(config) as process:
            await_answer(config, process).close()
            start_s = time.perf_counter() - launched
            private = _watched(config, psutil.Process(process.pid), drained, tell)
        ends = sorted(ended_runs(config), key=lambda run: run.ended_at)[:drained]
        seconds = (ends[-1].ended_at - min(run.started_at for run in ends)) / 1e6
        file_bytes = (config.store.path / "data.mdb").stat().st_blocks * 512
    return {
        "enqueue_jobs_per_s": round(size / enqueued),
        "start_ms": round(start_s * 1000, 1),
        "private_mb": round(private / 1e6, 1),
        "file_mb": round(file_bytes / 1e6, 1),
        "jobs_per_s": round(drained / seconds),
    }


def _watched(config: Config, process: psutil.Process, drained: int, tell: Tell) -> int:
    """Wait until so many jobs have completed; return the most private memory seen, in bytes."""
    seen = [_private_bytes(process)]
    await_completed(config, drained, tell, _DRAIN_S, meanwhile=lambda: seen.append(_private_bytes(process)))
    return max(seen)


def _private_bytes(process: psutil.Process) -> int:
    """Return the memory that only this process has, but for its pages of the store's file."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum(
            area.private_clean + area.private_dirty
            for area in process.memory_maps(grouped=True)
            if not area.path.endswith("data.mdb")
        )
    return 0

"""What stands in the way of a job that waits, in words for the messages of a test."""

from __future__ import annotations

from jobsched.clock import from_micros
from jobsched.config import Config
from jobsched.job import State
from jobsched.store.base import StoredJob
from jobsched.testing.local_node import LocalNode

__all__ = ["obstacle", "waiting"]


def obstacle(node: LocalNode, job: StoredJob) -> str:
    """Say why a job does not run now."""
    status, now = job.status, from_micros(node.now).isoformat()
    if status.state is State.SCHEDULED:
        return f"it is due at {from_micros(status.due_at).isoformat()}, now is {now}"
    if status.state is State.IN_PROGRESS:
        return "it is running, and waits for what asks for it"
    return next((why for holds, why in _reasons(node, node.config, status.category) if holds))


def _reasons(node: LocalNode, config: Config, category: str) -> list[tuple[bool, str]]:
    settings = config.category(category)
    most = settings.max_workers
    return [
        (node.running() >= config.workers, f"all {config.workers} workers run jobs that wait for others"),
        (
            most is not None and node.running(category) >= most,
            f"category {category!r} has {most} workers at most, and their jobs wait for others",
        ),
        (node.stats[category].paused, f"category {category!r} is paused"),
        (node.stats[category].ready > 0, f"the rate of category {category!r} lets none start now"),
        (True, "it is at a limit of how many may run at once"),
    ]


def waiting(node: LocalNode) -> str:
    """Say how many jobs have not ended in each category that has any."""
    counts = {name: sum(stats.counts[: State.COMPLETED]) for name, stats in node.stats.items()}
    return ", ".join(f"{name}: {count}" for name, count in counts.items() if count) or "none"

"""An event as people read it: one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobsched import event as events
from jobsched.cli.output import clean
from jobsched.clock import MICROSECONDS, from_micros
from jobsched.event import Event, JobEvent, ScheduleEvent, WorkerEvent

__all__ = ["line"]

_ID = 8  # digits that tell jobs apart
_KIND = 15  # columns


def line(event: Event, width: int | None = None) -> str:
    """Return an event's line: when, what, about what, and more; cut where it is longer than the width."""
    when = from_micros(event.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    words = (when, f"{event.kind:<{_KIND}}", _subject(event), _MORE.get(type(event), _nothing)(event))
    text = clean(" ".join(word for word in words if word))
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def _subject(event: Event) -> str:
    if isinstance(event, JobEvent):
        return f"{event.category} {event.task or '?'} {event.job[-_ID:]}"
    if isinstance(event, WorkerEvent):
        return f"{event.category} {event.worker}"
    return event.schedule if isinstance(event, ScheduleEvent) else ""


def _nothing(_: Event) -> str:
    return ""


def _due(event: Any) -> str:
    return f"due in {max(0, event.due_at - event.at) / MICROSECONDS:g} s" if event.due_at else ""


def _times(event: Any) -> str:
    return f"{event.count} due times: " if event.count > 1 else ""


def _retried(event: Any) -> str:
    return f"{_due(event) or 'at once'}: {event.cause}"


def _changes(event: Any) -> str:
    """Return how many workers each category has got or lost."""
    before, after = event.before, event.after
    moved = [f"{name} {before.get(name, 0)}→{count}" for name, count in after.items()]
    return " ".join(text for text in moved if text.split(" ")[1].split("→")[0] != text.rpartition("→")[2])


_MORE: dict[type[Event], Callable[[Any], str]] = {
    events.JobDispatched: _due,
    events.JobQueued: lambda event: f"was {event.was}",
    events.JobStarted: lambda event: f"attempt {event.attempt}",
    events.JobCompleted: lambda event: f"{(event.ended_at - event.started_at) / MICROSECONDS:.3f} s",
    events.JobFailed: lambda event: f"attempt {event.attempt}: {event.cause}",
    events.JobRetried: _retried,
    events.JobCancelled: lambda event: event.cause or f"was {event.was}",
    events.JobParked: lambda event: event.cause,
    events.JobQuarantined: lambda event: f"{event.crashes} crashes: {event.cause}",
    events.JobGivenBack: lambda event: "interrupted" if event.interrupted else "",
    events.JobDeleted: lambda event: f"was {event.was}",
    events.JobsPruned: lambda event: f"{event.count} jobs",
    events.WorkerReady: lambda event: f"pid {event.pid}",
    events.WorkerEnded: lambda event: event.cause,
    events.WorkerMoved: lambda event: f"from {event.before}",
    events.WorkerLent: lambda event: f"to {event.to}",
    events.ScheduleFired: lambda event: f"{_times(event)}job {event.job[-_ID:]}{' by hand' * event.by_hand}",
    events.ScheduleSkipped: lambda event: f"{_times(event)}{event.cause}",
    events.ScheduleNoted: lambda event: event.cause,
    events.BalanceDecided: _changes,
    events.NodeStarted: lambda event: f"pid {event.pid}, {event.workers} workers",
    events.NodeDraining: lambda event: f"{event.grace_s:g} s of grace",
    events.NodeStopped: lambda event: f"{event.put_back} jobs put back" if event.put_back else "",
    events.NodeHeld: lambda event: event.cause,
    events.Dropped: lambda event: f"{event.count} events are missing here",
}

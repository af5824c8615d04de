"""Triggers as people write them."""

from __future__ import annotations

from jobsched.amount import span
from jobsched.trigger import Cron, Every, Once, Trigger

__all__ = ["trigger_text"]


def trigger_text(trigger: Trigger) -> str:
    """Return a trigger in a few words: ``30 2 * * * Europe/Berlin``, ``every 5m``."""
    match trigger:
        case Cron():
            return trigger.expr if trigger.timezone == "UTC" else f"{trigger.expr} {trigger.timezone}"
        case Every():
            return f"every {span(trigger.step.total_seconds())}"
        case Once():
            return f"at {trigger.at:%Y-%m-%d %H:%M:%S}Z"
    return repr(trigger)

"""The task that works out more times of a trigger of the user's own. Workers know it by themselves."""

from __future__ import annotations

from jobsched.api import default_dispatcher, task
from jobsched.errors import ScheduleNotFound
from jobsched.own_trigger import KnownTimes, with_more

__all__ = ["refill"]


@task(max_retries=10)
def refill(name: str) -> int:
    """Work out the next times of a schedule's trigger; return how many are known now: none of one that
    was removed meanwhile, or has another trigger.
    """
    try:
        trigger = default_dispatcher().schedules.extend(name, with_more).trigger
    except ScheduleNotFound:
        return 0
    return len(trigger.times) if isinstance(trigger, KnownTimes) else 0

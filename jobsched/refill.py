"""The task that works out more times of a trigger of the user's own. Workers know it by themselves."""

from __future__ import annotations

from jobsched.api import default_dispatcher, task
from jobsched.own_trigger import KnownTimes, with_more
from jobsched.schedule_view import ScheduleInfo

__all__ = ["refill"]


@task(max_retries=10)
def refill(name: str) -> int:
    """Work out the next times of a schedule's trigger; return how many are known now."""
    schedules = default_dispatcher().schedules
    found: ScheduleInfo = schedules.get(name)
    if not isinstance(found.trigger, KnownTimes):
        return 0
    known = schedules.extend(name, with_more).trigger
    assert isinstance(known, KnownTimes)
    return len(known.times)

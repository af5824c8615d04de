"""What can be asked of a store about schedules, by a client through its node as well."""

from __future__ import annotations

import msgspec

from jobsched.schedule import FiringRecord, StoredSchedule
from jobsched.store.base import JobStore

__all__ = ["Findings", "FiringQuery", "ScheduleQuery", "findings"]


class ScheduleQuery(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask for the schedule of a name or, without one, for up to 200 in the order of their names, from
    behind one on.
    """

    name: str | None = None
    after: str = ""


class FiringQuery(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Ask for up to 200 records of a schedule, the latest due time first, those due before a time."""

    name: str
    limit: int = 200
    before: int = 0


class Findings(msgspec.Struct, frozen=True, array_like=True):
    """What was found: of the one or the other."""

    schedules: list[StoredSchedule] = []
    firings: list[FiringRecord] = []


def findings(store: JobStore, query: ScheduleQuery | FiringQuery) -> Findings:
    """Return what a store has."""
    if isinstance(query, FiringQuery):
        return Findings(firings=store.firings(query.name, max(0, query.limit), max(0, query.before)))
    if query.name is None:
        return Findings(store.schedules(query.after))
    found = store.schedule(query.name)
    return Findings([] if found is None else [found])

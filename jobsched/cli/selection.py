"""The jobs that conditions mean: a walk through the store by pages, never all of them at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from jobsched.cli.where import Where
from jobsched.job import State
from jobsched.store.base import JobStore, Query, StoredJob

__all__ = ["selected"]

_PAGE = 200
_MORE = 10_000  # jobs that may come in while we walk


def selected(
    store: JobStore, where: Where, states: Collection[State] = frozenset(State)
) -> Iterator[list[StoredJob]]:
    """Yield, page by page, the jobs in one of some states that meet the conditions.

    Pages may be empty. Jobs may be changed between pages. The walk ends also where others dispatch
    as fast as it goes: it looks at about as many jobs of a state as there were when it began.
    """
    wanted = where.states & frozenset(states)
    if wanted == frozenset(State):
        yield from _pages(store, where, None)
        return
    for state in sorted(wanted):
        yield from _pages(store, where, state)


def _pages(store: JobStore, where: Where, state: State | None) -> Iterator[list[StoredJob]]:
    """Yield what matches of the jobs in one state, or in any."""
    counts = store.stats().values()
    room = _MORE + sum(sum(row.counts) if state is None else row[state] for row in counts)
    after: bytes | None = b""
    while after is not None and room > 0:
        page = store.find(Query(state=state, category=where.category, limit=_PAGE, after=after))
        room -= len(page.jobs)
        after = page.next
        yield [job for job in page.jobs if where.matches(job)]

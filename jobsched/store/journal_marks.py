"""Up to which entry a store has taken each journal in: the rule that all stores share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobsched.store.base import Accepted, Refused, Reply, Span

__all__ = ["known_answer"]


def known_answer(spans: Sequence[Span], marks: Mapping[str, int]) -> Reply | None:
    """Return the reply to a request that takes entries in, if its jobs are not to be added: `Accepted` if
    the store has them all, `Refused` if others are missing before them. None if they are the next ones.

    `marks` has the number of the last entry in the store, for each journal with one.
    """
    if all(span.last <= marks.get(span.journal, 0) for span in spans):
        return Accepted()
    for span in spans:
        mark = marks.get(span.journal, 0)
        if span.first != mark + 1:
            return Refused(
                "StoreError",
                f"entry {span.first:,} of journal {span.journal} cannot be taken in: {mark + 1:,} comes next",
            )
    return None

"""Up to which entry a store has taken each journal in: the rule that all stores share.

`marks` are the numbers of the last entries that are in the store, of each journal with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["Span", "are_known", "gap"]


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a client's journal, from a number to a number."""

    journal: str
    first: int
    last: int


def are_known(spans: Sequence[Span], marks: Mapping[str, int]) -> bool:
    """Say whether the store has all of these entries."""
    return all(span.last <= marks.get(span.journal, 0) for span in spans)


def gap(spans: Sequence[Span], marks: Mapping[str, int]) -> str | None:
    """Return why entries cannot be taken in: they are not the ones that come next. None if they are."""
    for span in spans:
        wanted = marks.get(span.journal, 0) + 1
        if span.first != wanted:
            return f"entry {span.first:,} of journal {span.journal} cannot be taken in: {wanted:,} comes next"
    return None

"""Dealing a category's jobs out to the workers that have room for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from jobsched.store.base import Slot

__all__ = ["Dealer"]


class Dealer:
    """Hands a category's jobs to workers: one each, in turns, until every slot is full."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._rooms = deque([slot.worker, slot.limit, int(slot.is_busy)] for slot in slots if slot.limit > 0)

    @property
    def is_full(self) -> bool:
        """Whether no slot has room."""
        return not self._rooms

    @property
    def room(self) -> int:
        """How many jobs fit in all."""
        return sum(room[1] for room in self._rooms)

    def next(self, *, alone: bool) -> int | None:
        """Return the worker for the next job; one that holds nothing, and gets no more, if the job
        is to be `alone`: None if there is none such.
        """
        rooms = self._rooms
        if alone:
            return self._next_free()
        room = rooms[0]
        room[1] -= 1
        room[2] = 1
        rooms.rotate(-1)
        if not room[1]:
            rooms.pop()
        return room[0]

    def _next_free(self) -> int | None:
        for room in self._rooms:
            if not room[2]:
                self._rooms.remove(room)
                return room[0]
        return None

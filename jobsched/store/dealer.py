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

    def next(self) -> int:
        """Return the worker for the next job. There must be room."""
        return self.deal(1)[0]

    def deal(self, count: int) -> list[int]:
        """Return the workers for the next jobs, in their order. There must be room for all."""
        rooms = self._rooms
        workers: list[int] = []
        while len(workers) < count:
            room = rooms[0]
            room[1] -= 1
            room[2] = 1
            if room[1]:
                rooms.rotate(-1)
            else:
                rooms.popleft()
            workers.append(room[0])
        return workers

    def next_free(self) -> int | None:
        """Return a worker that holds nothing, for a job that is to be alone there: it gets no more.
        None if there is none.
        """
        for room in self._rooms:
            if not room[2]:
                self._rooms.remove(room)
                return room[0]
        return None

"""The declarer: sees that the store has the schedules that the configuration declares, at the start."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import msgspec

from jobsched import wire
from jobsched.clock import Clock
from jobsched.config import Config
from jobsched.reception import Reception
from jobsched.schedule import StoredSchedule
from jobsched.schedule_sync import Difference, changes, differences
from jobsched.store.base import JobStore, Refused, Request

__all__ = ["Declarer"]

log = logging.getLogger(__name__)

_NUMBER = 1
_TRIES = 100  # with a store that fails: the node leaves it alone for a while in between
_AGAIN = {"NotCommitted", "NoRoom", "ScheduleChanged", "ScheduleExists", "ScheduleNotFound"}


class Declarer:
    """Asks the node's reception for the changes, as a client would, and is told what became of them.

    Nobody has loaded the user's modules by then, so a schedule is taken whatever its task is.
    """

    def __init__(self, config: Config, store: JobStore, reception: Reception, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._reception = reception
        self._clock = clock
        self._asked: Sequence[Difference] = ()
        self._tries = 0

    def ask(self) -> None:
        """Ask for what the next turn is to change; nothing where the store has all of it."""
        self._tries += 1
        now = self._clock.now()
        found = differences(self._config.schedules, _all(self._store), self._config.source, now)
        self._asked = [difference for difference in found if difference.change is not None]
        if self._asked:
            request = Request(schedules=changes(self._asked))
            self._reception.take(self, wire.Ask(_NUMBER, request))

    def send(self, message: msgspec.Struct) -> None:
        """Take the answer: that of an `Asker`."""
        reply = message.reply if isinstance(message, wire.Answer) else None
        if not isinstance(reply, Refused):
            for difference in self._asked:
                level = logging.WARNING if difference.kind == "taken over" else logging.INFO
                told = "; ".join([difference.title, *difference.steps])
                log.log(level, "schedule=%s %s", difference.name, told)
        elif reply.kind in _AGAIN and self._tries < _TRIES:
            self.ask()
        else:
            log.error(
                "the schedules of %s were not brought up to date: %s; `jobsched schedule apply` does it",
                self._config.source,
                reply.reason,
            )


def _all(store: JobStore) -> Iterator[StoredSchedule]:
    page = store.schedules()
    while page:
        yield from page
        page = store.schedules(page[-1].schedule.name)

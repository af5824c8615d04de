"""The node's journals: takes in what clients have written there, and tells them how far it has come."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator

from jobsched import wire
from jobsched.client import Client
from jobsched.config import Config
from jobsched.errors import NotCommitted
from jobsched.journal.board import SLOTS, JournalBoard
from jobsched.journal.intake import dropped, opened, outlived, set_aside, take_in
from jobsched.journal.reader import Dispatched, Reader, request_of
from jobsched.locks import is_locked
from jobsched.reception import Reception
from jobsched.store.base import Accepted, JobStore, Refused, Reply, Request, Turn, TurnResult
from jobsched.store.place import JOURNALS

__all__ = ["Journals"]

log = logging.getLogger(__name__)

_WAIT_S = 0.01  # that entries for which no worker is free may gather, as their clients do not wait for us
_LOOK_S = 1.0  # between two looks at journals whose clients are not connected
_NO_ROOM_S = 1.0
_NAME = re.compile("[0-9a-f]{32}")
_MOST_MISSED = 100  # looks that find nothing though the client says that there is something


class Journals:
    """The journals beside a node's store. Belongs to the node's loop."""

    def __init__(self, config: Config, reception: Reception) -> None:
        self._folder = config.store.path / JOURNALS
        self._reception = reception
        self._categories = frozenset(n for n, c in config.categories.items() if c.max_pending is None)
        self._is_open = False
        self._board: JournalBoard | None = None  # without one no client has a journal
        self._slots: dict[int, Reader] = {}
        self._clients: dict[Client, int] = {}
        self._free = list(range(SLOTS))
        self._alone: dict[str, Reader] = {}  # whose clients are not connected
        self._kept: dict[str, int] = {}  # their slots: a client may write until it finds out
        self._look_at = 0.0
        self._come: list[Dispatched] = []  # read, and not in the store
        self._earlier = 0  # of them, not read just now
        self._come_at = 0.0
        self._until = 0  # times of the monotonic clock: what was written before has been read
        self._again_at = 0.0  # monotonic; 0 unless they were refused the last time
        self._asked: Request | None = None  # what the turn is to take in
        self._missed = 0
        self._forgotten: list[str] = []
        self._is_stopping = False
        self._is_short = False  # of room

    def open(self, store: JobStore) -> None:
        """Adopt the journals that are there, and let clients have their own, if there is room for a board.
        Raises StoreError.
        """
        self._is_open = True
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for unfinished in self._folder.glob("*.new"):
                if not is_locked(unfinished):
                    unfinished.unlink(missing_ok=True)
            self._board = JournalBoard.new()
        except OSError as error:
            log.warning("clients have no journals: %s", error)
        self._alone = {reader.name: reader for reader in opened(self._folder, store)}
        self._forgotten = outlived(self._folder, store)

    # Clients.

    @property
    def count(self) -> int:
        """How many journals are open."""
        return len(self._slots) + len(self._alone)

    @property
    def bell(self) -> JournalBoard | None:
        """What clients ring, to be watched."""
        return self._board

    def attach(self, client: Client, message: wire.Attach) -> None:
        """Take in what a client writes to its journal from now on, if it can be had."""
        reader = self._reader(message.journal) if self._may_attach(client, message.journal) else None
        if reader is None or self._board is None:
            client.send(wire.Attached(message.number, -1))
            return
        slot = self._kept.pop(reader.name, -1)
        slot = self._free.pop() if slot < 0 else slot
        self._board.set_written(slot, 0)
        self._board.set_taken(slot, reader.next - 1)
        self._slots[slot], self._clients[client] = reader, slot
        names = frozenset(self._reception.tasks)
        board = self._board
        told = wire.Attached(message.number, slot, board.path, board.token, names, self._categories)
        client.send(told)

    def _may_attach(self, client: Client, name: str) -> bool:
        is_open = self._board is not None and not self._board.is_closed
        has_slot = bool(self._free) or name in self._kept
        return is_open and has_slot and bool(self._reception.tasks) and client not in self._clients

    def _reader(self, name: str) -> Reader | None:
        """Return the reader of a journal that nobody else has."""
        if not _NAME.fullmatch(name) or any(reader.name == name for reader in self._slots.values()):
            return None
        if name in self._alone:
            return None if self._is_held_back(name) else self._alone.pop(name)
        try:
            reader = Reader(self._folder / f"{name}.journal", 0)
        except (OSError, ValueError):
            return None
        if reader.owner == os.geteuid():
            return reader
        reader.close()
        return None

    def _is_held_back(self, name: str) -> bool:
        """Say whether entries of a journal are read and not in the store: `taken` could not be told."""
        return any(entry.journal == name for entry in self._come)

    def detach(self, client: Client) -> None:
        """Go on alone with the journal of a client that has hung up, if it has one."""
        slot = self._clients.pop(client, None)
        reader = None if slot is None else self._slots.pop(slot, None)
        if slot is not None and reader is not None:
            self._alone[reader.name], self._kept[reader.name] = reader, slot
            self._look_at = 0.0

    # What they write.

    def is_quiet(self) -> bool:
        """Have clients ring from now on; say whether there is nothing to take in yet."""
        if self._board is not None:
            self._board.silence()  # only now: what woke us is worth more than what has woken us
        if self._come:
            return True  # no need to ring: what comes will be seen when these are taken in
        if self._slots and self._board is not None:
            self._board.is_rung_for = True
            return next(self._has_come(), None) is None
        return bool(self._look_at) or not self._alone

    def _has_come(self) -> Iterator[int]:
        board = self._board
        if board is not None:
            yield from (slot for slot, reader in self._slots.items() if board.written(slot) >= reader.next)

    def gather(self, now: float) -> None:
        """Read what has come. `now` is monotonic."""
        if self._board is not None:
            self._board.is_rung_for = False
        self._asked = None
        self._until = time.monotonic_ns()  # before anything is read: see `request`
        before = self._earlier = len(self._come)
        come = list(self._has_come())
        for slot in come:
            self._read(self._slots[slot])
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._look_at_those_alone()
        if before == 0 and self._come:
            self._come_at = now
        self._missed = 0 if len(self._come) > before or not come else self._missed + 1
        if self._missed > _MOST_MISSED:
            self._end_missing(come)

    def _read(self, reader: Reader) -> None:
        try:
            self._come += reader.read()
        except ValueError as error:
            self._give_up(reader, str(error))

    def _look_at_those_alone(self) -> None:
        gone: list[Reader] = []
        for reader in list(self._alone.values()):
            is_abandoned = reader.is_abandoned()  # asked first: then nothing comes after what is read
            self._read(reader)
            if is_abandoned and reader.name in self._alone and not self._is_held_back(reader.name):
                gone.append(reader)
        self._forgotten += dropped(self._folder, gone)
        for reader in gone:
            self._alone.pop(reader.name).close()
            if reader.name in self._kept:
                self._free.append(self._kept.pop(reader.name))

    def _end_missing(self, come: list[int]) -> None:
        """Give up journals that are said to hold more and do not: else the loop would never wait."""
        self._missed = 0
        for slot in self._slots.keys() & come:
            self._give_up(self._slots[slot], "an entry that its client has written is not whole")

    def _give_up(self, reader: Reader, why: str) -> None:
        """Set a journal aside, once what could be read of it is in the store."""
        if self._is_held_back(reader.name):
            return  # until it is looked at again
        set_aside(reader.path, why)
        self._alone.pop(reader.name, None)
        for client, slot in list(self._clients.items()):
            if self._slots[slot] is reader:
                del self._clients[client], self._slots[slot]  # the slot stays taken: its client may use it
                self._kept[reader.name] = slot
        slot = self._kept.pop(reader.name, -1)
        if self._board is not None and slot >= 0:
            self._board.give_up(slot)
        reader.close()

    # The turn.

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be taken in or to be read."""
        return not self._come and not list(self._has_come())

    def arriving(self) -> Counter[str]:
        """Return how many jobs each category gets when all that has come is taken in."""
        return Counter(job.category for entry in self._come for job in entry.jobs if not job.due_at)

    def is_due(self, now: float, *, is_asked: bool) -> bool:
        """Say whether to take in what has come, whatever else there is to do: it has waited long enough, or
        somebody asks for jobs, which may be there.
        """
        is_due = is_asked or now >= max(self._come_at + _WAIT_S, self._again_at)
        return is_due and bool(self._come)

    def timeout_s(self, now: float) -> float:
        """Return how long the loop may sleep."""
        if self._come:
            return max(0.0, self._come_at + _WAIT_S - now, self._again_at - now)
        if self._alone:
            return max(0.0, self._look_at - now)
        return _LOOK_S if self._slots else math.inf  # should a ring get lost

    def request(self, now: float, *, is_behind: bool) -> Request | None:
        """Return what the turn is to take in; None without anything. `is_behind` says that the turn has other
        requests, which must not come before it, however lately there was no room.

        An entry that was written while we read is left for the next time: another journal, read before,
        may hold one that is older. What was read earlier is not: its time may be that of another boot.
        """
        if self._asked is None and (is_behind or now >= self._again_at):
            new = (entry for entry in self._come[self._earlier :] if entry.at <= self._until)
            entries = [*self._come[: self._earlier], *new]
            self._asked = request_of(entries) if entries else None
        return self._asked

    def sure(self, now: float) -> Request | None:
        """Return what `request` will return, unless it was refused the last time: then it may be again."""
        return None if self._again_at else self.request(now, is_behind=False)

    def forgotten(self) -> list[str]:
        """Return the journals whose marks the turn is to forget."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def learn(self, turn: Turn, result: TurnResult, store: JobStore, now: float) -> None:
        """Take what a turn has done; the last of its requests is that of `request`, if one was made."""
        asked, self._asked = self._asked, None
        replies = result.replies
        if self._is_short and any(map(_has_added, turn.requests, replies)):
            self._set_short(is_short=False)
        if asked is None:
            return
        if isinstance(replies[-1], Refused):
            self._put_off(replies[-1], store, now)
            return
        self._set_short(is_short=result.is_over)
        self._again_at = 0.0
        ends = {span.journal: span.last for span in asked.taken}
        self._come = [entry for entry in self._come if entry.number > ends.get(entry.journal, 0)]
        self._come_at = now
        for slot, reader in self._slots.items():
            if reader.name in ends and self._board is not None:
                self._board.set_taken(slot, ends[reader.name])

    def _put_off(self, refused: Refused, store: JobStore, now: float) -> None:
        """Try again later, without what the store has already."""
        if now >= self._again_at:
            log.warning("what clients have dispatched waits in their journals: %s", refused.reason)
        self._again_at = now + _NO_ROOM_S
        if refused.kind == "StoreFull":
            self._set_short(is_short=True)
            return
        marks = store.journals()
        self._come = [entry for entry in self._come if entry.number > marks.get(entry.journal, 0)]

    def shut(self) -> None:
        """Have clients ask the node instead: it is about to stop."""
        self._is_stopping = True
        self._close_board(is_closed=True)

    def _set_short(self, *, is_short: bool) -> None:
        """Note whether there is room: without any, clients ask the node, and are refused."""
        self._is_short = is_short
        self._close_board(is_closed=is_short or self._is_stopping)

    def _close_board(self, *, is_closed: bool) -> None:
        if self._board is not None:
            self._board.is_closed = is_closed

    def take_in_rest(self, store: JobStore, now: int) -> None:
        """Take in what has come since the last turn, and let go: `now` is in UTC microseconds."""
        self.close()
        if not self._is_open:
            return  # the journals there are those of another store
        with contextlib.suppress(NotCommitted):  # it is on disk: the next node has it
            take_in(store, self._folder.parent, now)

    def close(self) -> None:
        """Let go of everything. What is not taken in is for the next node."""
        if self._board is not None:
            self.shut()
            self._board.close()
            self._board = None
        for reader in [*self._slots.values(), *self._alone.values()]:
            reader.close()
        self._slots, self._alone = {}, {}


def _has_added(request: Request, reply: Reply) -> bool:
    """Say whether a request that was asked of the node has got room for its jobs."""
    return bool(request.jobs) and not request.taken and isinstance(reply, Accepted)

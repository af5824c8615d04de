"""The node's side of its socket: who is let in, who is heard in a turn, who is dropped."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
from functools import partial
from pathlib import Path

from jobsched import wire
from jobsched.audience import Audience
from jobsched.client import Client, Tally
from jobsched.errors import Unavailable, WireError
from jobsched.journals import Journals
from jobsched.loop import Loop
from jobsched.reception import Reception

__all__ = ["Clients", "Listener", "room_for_clients"]

log = logging.getLogger(__name__)

SOCKET_NAME = "node.sock"
MAX_CLIENTS = 4096
TURN_BYTES = 16 << 20
"""What a turn gathers from clients, at most; and one request more."""

_BACKLOG = 512
_MAX_UNSENT = 64 << 20
_MAX_UNSENT_TO_ONE = 16 << 20
_MAX_UNFINISHED = 256 << 20
_OWN_FILES = 64  # the store, the locks, the preloader, the log, and what Python opens for a moment
_FILES_PER_WORKER = 8
_LEAST_CLIENTS = 16


def room_for_clients(workers: int) -> int:
    """Raise the limit on open files as far as a node needs; return how many clients may connect.

    The children inherit it, so it is not raised beyond: where the hard limit is a billion, programs
    that close every descriptor there may be would take minutes.
    """
    others = _OWN_FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = others + MAX_CLIENTS
    if soft < min(wanted, hard):
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted:
        return MAX_CLIENTS
    most = max(_LEAST_CLIENTS, soft - others)
    log.warning(
        "at most %d clients at a time: %d workers and %d clients need %d open files, the limit is %d",
        most, workers, MAX_CLIENTS, wanted, soft,
    )  # fmt: skip
    return most


class Listener:
    """The listening socket in the store's directory, for its owner alone."""

    def __init__(self, directory: Path, most_clients: int = MAX_CLIENTS) -> None:
        self.most_clients = most_clients
        self._path = directory / SOCKET_NAME
        self._path.unlink(missing_ok=True)  # what a killed node has left: we hold node.lock
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        before = os.umask(0o177)
        try:
            with wire.unix_address(directory, SOCKET_NAME) as address:
                self._socket.bind(address)
        finally:
            os.umask(before)
        self._socket.listen(_BACKLOG)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._is_full = False

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """Return the next connection of our own user or root, None without one."""
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            self._turn_away(error)
            return None
        self._is_full = False
        uid = wire.peer(connection).uid
        if uid not in (os.geteuid(), 0):
            log.warning("a client of uid %d was turned away", uid)
            connection.close()
            return None
        return connection

    def _turn_away(self, error: OSError) -> None:
        """Hang up on a client for which there is no descriptor left: it tries again for a while.

        Left in the queue, it would wake the loop for ever. The spare descriptor serves to take it.
        """
        if not self._is_full:
            log.warning("turning clients away: %s", error)
        self._is_full = True
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self._socket.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening; clients that come now find no node."""
        self._path.unlink(missing_ok=True)
        self._socket.close()
        os.close(self._spare)


class Clients:
    """All connected processes, from their greeting to their hanging up.

    A turn hears everybody who has something to say, until what it has gathered is enough: then the
    others wait in their sockets, and come first in the next turn. No request is ever split.
    """

    def __init__(
        self, listener: Listener, loop: Loop, reception: Reception, audience: Audience, journals: Journals
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._reception = reception
        self._audience = audience
        self._journals = journals
        self._connected: dict[Client, None] = {}  # who was heard longest ago comes first
        self._is_full = False
        self._unsent = Tally(_MAX_UNSENT, lambda client: client.unsent)
        self._unfinished = Tally(_MAX_UNFINISHED, lambda client: client.unfinished)
        self._round = 0
        self._gathered = 0  # bytes, in this round
        self._heard: set[Client] = set()  # in this round
        self._passed_over: list[Client] = []
        loop.watch(listener, self._accept)
        if journals.bell is not None:
            loop.watch(journals.bell, journals.bell.hear)

    # Coming.

    def _accept(self) -> None:
        connection = self._listener.accept()
        if connection is None:
            return
        files = len(self._connected) + self._journals.count
        if files >= self._listener.most_clients and not self._make_room():
            connection.close()  # nobody is idle: it tries again
            return
        client = Client(connection, self._on_blocked)
        self._connected[client] = None
        self._loop.watch(client, partial(self._on_ready, client))

    def _make_room(self) -> bool:
        """Drop the client that has been idle longest; say whether there was one."""
        most = self._listener.most_clients
        if not self._is_full:
            log.warning("%d clients are connected, the most there may be: the idlest make room", most)
            self._is_full = True
        idle = next((client for client in self._connected if client.is_idle), None)
        if idle is None:
            return False
        idle.retire(
            Unavailable(f"the node serves {most:,} clients, and this one was idle longest: connect again")
        )
        self._drop(idle)
        return True

    # Being heard.

    def _on_ready(self, client: Client) -> None:
        if self._round != self._loop.rounds:
            self._begin_round()
        self._hear(client)

    def _begin_round(self) -> None:
        self._round = self._loop.rounds
        self._gathered = 0
        self._heard.clear()
        waiting, self._passed_over = self._passed_over, []
        for client in waiting:
            self._hear(client)

    def _hear(self, client: Client) -> None:
        if client in self._heard or client not in self._connected:
            return
        self._heard.add(client)
        if self._gathered >= TURN_BYTES:
            self._passed_over.append(client)
            return
        try:
            self._take(client)
        except WireError as error:
            log.warning("dropped a client, pid %d: %s", client.pid, error)
            client.refuse(error)
            self._drop(client)
        except OSError:
            self._drop(client)

    def _take(self, client: Client) -> None:
        """Take what one client has sent. Raises OSError when it is gone, WireError for nonsense."""
        if client.is_cut:
            raise ConnectionAbortedError
        messages = client.receive()
        self._gathered += client.weight
        for message in messages:
            if isinstance(message, wire.Listen):
                self._audience.join(client, message)
            elif isinstance(message, wire.Attach):
                self._journals.attach(client, message)
            else:
                self._reception.take(client, message)
        self._connected[client] = self._connected.pop(client)
        offender = self._unfinished.offender(client)
        if offender is not None:
            log.warning(
                "dropped a client, pid %d: %d MiB of requests are unfinished, and %d MiB of them its own",
                offender.pid, _MAX_UNFINISHED >> 20, offender.unfinished >> 20,
            )  # fmt: skip
            self._drop(offender)

    # Being told.

    def _on_blocked(self, client: Client) -> None:
        """Have what a client does not take yet sent later, unless it is too much."""
        if client.unsent > _MAX_UNSENT_TO_ONE:
            self._cut(client)
            return
        offender = self._unsent.offender(client)
        if offender is not None:
            self._cut(offender)
        if not client.is_cut:
            self._loop.await_room(client)

    def _cut(self, client: Client) -> None:
        log.warning(
            "dropped a client, pid %d: it does not read, %d MiB wait", client.pid, client.unsent >> 20
        )
        client.cut()

    # Going.

    def _drop(self, client: Client) -> None:
        self._connected.pop(client, None)
        self._is_full = self._is_full and len(self._connected) > self._listener.most_clients // 2
        self._unsent.forget(client)
        self._unfinished.forget(client)
        self._loop.forget(client)
        self._reception.forget(client)
        self._audience.leave(client)
        self._journals.detach(client)
        client.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self._loop.forget(self._listener)
        if self._journals.bell is not None:
            self._loop.forget(self._journals.bell)
        for client in list(self._connected):
            self._drop(client)

"""The node's side of its socket: clients, their frames, their greetings."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jobsched import wire
from jobsched.errors import JobschedError, WireError, WireVersionError
from jobsched.framed import FramedSocket
from jobsched.loop import Loop
from jobsched.reception import Reception

__all__ = ["Client", "Clients", "Listener"]

log = logging.getLogger(__name__)

_BACKLOG = 512
SOCKET_NAME = "node.sock"


class Client(FramedSocket[wire.FromClient]):
    """A connected process."""

    def __init__(self, connection: socket.socket, blocked: Callable[[Client], None]) -> None:
        super().__init__(connection, "a client", wire.FromClient, blocked)
        self._is_greeted = False

    def receive(self) -> list[wire.Ask | wire.Look]:
        """Return what the client has asked. Raises ConnectionResetError when it has hung up,
        WireError when it sends anything but our protocol.
        """
        asked: list[wire.Ask | wire.Look] = []
        for message in self.arrived():
            if isinstance(message, wire.Hello):
                self._greet(message)
            elif not self._is_greeted:
                raise WireError("the first frame must be a greeting")
            else:
                asked.append(message)
        return asked

    def _greet(self, hello: wire.Hello) -> None:
        if hello.version != wire.VERSION:
            raise WireVersionError(hello.version, wire.VERSION)
        self._is_greeted = True
        self.send(wire.Welcome(os.getpid()))

    def refuse(self, error: JobschedError) -> None:
        """Tell the client why it is dropped."""
        self.send(wire.Bye(type(error).__name__, str(error)))


class Listener:
    """The listening socket in the store's directory, for its owner alone."""

    def __init__(self, directory: Path) -> None:
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
        uid = wire.peer_uid(connection)
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
    """All connected processes, from their greeting to their hanging up."""

    def __init__(self, listener: Listener, loop: Loop, reception: Reception) -> None:
        self._listener = listener
        self._loop = loop
        self._reception = reception
        self._connected: set[Client] = set()
        loop.watch(listener, self._accept)

    def _accept(self) -> None:
        connection = self._listener.accept()
        if connection is not None:
            client = Client(connection, self._loop.await_room)
            self._connected.add(client)
            self._loop.watch(client, partial(self._hear, client))

    def _hear(self, client: Client) -> None:
        try:
            for message in client.receive():
                self._reception.take(client, message)
        except WireError as error:
            log.warning("dropped a client: %s", error)
            client.refuse(error)
            self._drop(client)
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        self._connected.discard(client)
        self._loop.forget(client)
        self._reception.forget(client)
        client.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self._loop.forget(self._listener)
        for client in list(self._connected):
            self._drop(client)

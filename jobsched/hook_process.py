"""The process of the hooks that the configuration names: imports them, and calls each with every event.

The node runs no user code; so this child of its does. It ends with the node, and when the node hangs up
after the last event.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import msgspec

from jobsched import event as events
from jobsched import linux, wire
from jobsched.errors import ConfigError, nearest

__all__ = ["IGNORED", "find_hook", "main"]

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or systemd sends to the whole group: the node decides what it means."""

log = logging.getLogger(__name__)

_RECEIVE = 1 << 18
_QUIET_S = 1.0  # a hook that fails at every event must not fill the log

Hook = Callable[[events.Event], object]


def find_hook(name: str) -> Hook:
    """Return the callable that ``package.module:name`` names. Raises what its module raises when it is
    imported, and ConfigError where there is no such callable.
    """
    module, _, place = name.partition(":")
    holder = importlib.import_module(module)
    try:
        found: Any = reduce(getattr, place.split("."), holder)
    except AttributeError:
        near = nearest(place, [known for known, thing in vars(holder).items() if callable(thing)])
        raise ConfigError([f"hooks: module {module!r} has no {place!r}{near}"]) from None
    if not callable(found):
        raise ConfigError([f"hooks: {name!r} is no callable, it is {type(found).__name__}"])
    hook: Hook = found
    return hook


class _Hooks:
    """Calls hooks; what they raise is logged, once a second with a traceback."""

    def __init__(self, hooks: dict[str, Hook]) -> None:
        self._hooks = hooks
        self._loud_at = 0.0
        self._hushed = 0

    def call(self, event: events.Event) -> None:
        """Call each hook with an event."""
        for name, hook in self._hooks.items():
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 (the user's code)
                self._say(name, event, error)

    def _say(self, name: str, event: events.Event, error: Exception) -> None:
        now = time.monotonic()
        if now < self._loud_at:
            self._hushed += 1
            return
        more = f", as {self._hushed:,} times before" if self._hushed else ""
        log.error("hook %s failed at %s%s", name, event.kind, more, exc_info=error)
        self._loud_at, self._hushed = now + _QUIET_S, 0


def main(arguments: Sequence[str]) -> None:
    """Be the process: told the socket to the node, the node's pid, the configuration's folder, hooks."""
    handle, node, directory, *names = arguments
    linux.die_with_parent(int(node))
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    sys.path.insert(0, directory)
    connection = socket.socket(fileno=int(handle))
    hooks = _Hooks({name: find_hook(name) for name in names})
    connection.sendall(wire.frame(wire.Ready(os.getpid())))
    _serve(connection, hooks)


def _serve(connection: socket.socket, hooks: _Hooks) -> None:
    decode = msgspec.msgpack.Decoder(wire.Told).decode
    frames = wire.FrameReader()
    while data := connection.recv(_RECEIVE):
        for body in frames.feed(data):
            for event in events.from_frame(decode(body).events):
                hooks.call(event)


if __name__ == "__main__":
    main(sys.argv[1:])

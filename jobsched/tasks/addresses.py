"""Where a request may go: to public addresses, and to what the operator allows. A name is resolved once,
and what was checked is what is connected to.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from jobsched.tasks.deadline import Deadline

__all__ = ["NotAllowed", "Place", "is_public", "places"]

Place = tuple[int, Any]
"""An address family, and an address as `socket.connect` takes it."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_SPECIAL = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments; older Pythons call some of them global, like the next three
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, Teredo among them
        "3fff::/20",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
    )
]


class NotAllowed(Exception):
    """A host has an address that is not public, and the operator does not allow it."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host {host!r} has an address that is not public; "
            f"to allow it, add to categories.toml: [http] allow = [{host!r}]"
        )


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the public internet, for one host. What holds an IPv4 address
    is none, but for NAT64, which is as public as the address in it: some networks know no other.
    """
    if isinstance(address, IPv6Address) and address in _NAT64:
        return is_public(IPv4Address(address.packed[-4:]))
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return False
    if address.is_multicast or address.is_reserved or any(address in special for special in _SPECIAL):
        return False
    return address.is_global


def places(host: str, port: int, allow: Sequence[str], deadline: Deadline) -> list[Place]:
    """Return where a host can be reached. Raises NotAllowed if one of its addresses is neither public nor
    allowed, OSError when the name cannot be resolved, TimeoutError.

    `allow` are addresses, networks and names of hosts, as in the configuration.
    """
    found = [(family, address) for family, _, _, _, address in _resolve(host, port, deadline)]
    if host.lower() not in allow:
        networks = [network for entry in allow for network in _network(entry)]
        for _, address in found:
            ip = ipaddress.ip_address(address[0])
            if not is_public(ip) and not any(ip in network for network in networks):
                raise NotAllowed(host)
    return found


def _network(entry: str) -> list[IPv4Network | IPv6Network]:
    """Return the network that an entry is, nothing for the name of a host."""
    try:
        return [ipaddress.ip_network(entry)]
    except ValueError:
        return []


def _resolve(host: str, port: int, deadline: Deadline) -> list[Any]:
    """Ask the system's resolver, in a thread: it knows no time limit, and minds no signal."""
    answers: queue.SimpleQueue[list[Any] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="jobsched-resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.rest_s())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, UnicodeError):  # a label that is empty or too long
        raise OSError(f"{host!r} is not the name of a host") from None
    if isinstance(answer, OSError):
        raise answer
    return answer

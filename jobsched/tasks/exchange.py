"""One HTTP request and its answer, over a connection of its own."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPResponse, IncompleteRead
from typing import NamedTuple
from urllib.parse import urlsplit

from jobsched.errors import InvalidOption
from jobsched.tasks.addresses import Place, places
from jobsched.tasks.deadline import Deadline, TimedSocket

__all__ = ["Answer", "Target", "exchange", "read_target"]

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")
_PLACES = 4  # addresses of a host that are tried
_CHUNK = 64 << 10
_MOST_HEADERS = 32 << 10  # characters of them that are kept
_SHOWN = 200
_AGENT = {"User-Agent": "jobsched", "Accept": "*/*", "Accept-Encoding": "identity"}


class Target(NamedTuple):
    """A URL in parts: where to connect, and what to ask for there."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What has to be the same for secrets to go along with a redirect."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """Host and port, as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL as errors and results have it: without its query, where keys are often put."""
        return f"{self.scheme}://{self.netloc}{self.path}"[:_SHOWN]


class Answer(NamedTuple):
    """What a server has answered. The names of headers are in lower case; `is_cut`: there was more."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool


def read_target(url: str) -> Target:
    """Return a URL's parts. Raises InvalidOption, which does not repeat it: it may hold a password."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise InvalidOption("url must be printable ASCII without spaces: percent-encode the rest")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidOption("url must look like https://host:port/path") from None
    if parts.scheme not in _PORTS:
        raise InvalidOption(f"url must begin with http:// or https://, got {parts.scheme[:20]!r}")
    if "@" in parts.netloc:
        raise InvalidOption("url holds a user name or password: send it in headers, as Authorization")
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host):
        raise InvalidOption("url must name a host, like https://host:port/path")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], parts.path or "/", parts.query)


def exchange(
    target: Target,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    most: int,
    allow: Sequence[str],
    deadline: Deadline,
) -> Answer:
    """Send a request, and return the answer with at most so many bytes of its body.

    Raises NotAllowed, OSError, http.client.HTTPException, and TimeoutError at the deadline.
    """
    found = places(target.host, target.port, allow, deadline)
    with _connected(target, found, deadline) as connected:
        timed = TimedSocket(connected, deadline)
        with contextlib.suppress(BrokenPipeError):  # it may have answered without hearing us out
            timed.send(_request(target, method, headers, body))
        response = HTTPResponse(timed, method=method)  # type: ignore[arg-type]
        with contextlib.closing(response):
            response.begin()
            data = _read(response, most + 1)
            return Answer(response.status, _kept(response), data[:most], len(data) > most)


@contextlib.contextmanager
def _connected(target: Target, found: Sequence[Place], deadline: Deadline) -> Iterator[socket.socket]:
    connected = _connect(found[:_PLACES], deadline)
    try:
        if target.scheme == "https":
            connected.settimeout(deadline.rest_s())
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=target.host)
        yield connected
    finally:
        connected.close()


def _connect(found: Sequence[Place], deadline: Deadline) -> socket.socket:
    """Connect to the first place that lets us: each has its share of the time."""
    for left, (family, address) in zip(range(len(found), 0, -1), found, strict=True):
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(deadline.rest_s() / left)
            connected.connect(address)
        except BaseException as error:
            connected.close()
            if left == 1 or not isinstance(error, OSError):
                raise
        else:
            return connected
    raise OSError("the host has no address")


def _request(target: Target, method: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    own = {"Host": target.netloc, **_AGENT, "Connection": "close"}
    if body is not None or method in {"POST", "PUT", "PATCH"}:
        own["Content-Length"] = str(len(body or b""))
    given = {name.lower() for name in headers}
    lines = [f"{method} {target.path}{target.query and '?'}{target.query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in own.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def _read(response: HTTPResponse, most: int) -> bytes:
    data = bytearray()
    while len(data) < most:
        part = response.read(min(_CHUNK, most - len(data)))
        if not part:
            if response.length:  # as the header has it; read() alone does not mind the difference
                raise IncompleteRead(b"", response.length)
            break
        data += part
    return bytes(data)


def _kept(response: HTTPResponse) -> dict[str, str]:
    """Return the headers that a result may hold: no cookies, and no more than it has room for."""
    kept: dict[str, str] = {}
    room = _MOST_HEADERS
    for name, value in response.getheaders():
        room -= len(name) + len(value)
        if room >= 0 and name.lower() not in {"set-cookie", "set-cookie2"}:
            kept[name.lower()] = f"{kept[name.lower()]}, {value}" if name.lower() in kept else value
    return kept

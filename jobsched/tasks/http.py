"""The built-in task `http`: one request, with limits on where it goes, how long, and how much it takes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from json import dumps
from typing import Any, NamedTuple
from urllib.parse import urljoin

from jobsched import ConfigError, InvalidOption, Retry, RetryRule, task
from jobsched.api import default_dispatcher
from jobsched.redact import is_secret_name
from jobsched.tasks.addresses import NotAllowed
from jobsched.tasks.deadline import Deadline
from jobsched.tasks.exchange import Answer, Target, exchange, read_target

__all__ = ["RequestFailed", "RequestRefused", "http"]

_MOST_BYTES = 960 << 10  # a result may have 1 MiB, headers and all
_MOST_REDIRECTS = 20
_LONGEST_WAIT_S = 86_400.0  # whatever a server asks for
_BUSY = {408, 425, 429}
_SERVER_ERROR = 500
_GET_NEXT = {301, 302, 303}  # what was no HEAD goes on as GET, as browsers do
_REDIRECTS = _GET_NEXT | {307, 308}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_OURS = {"host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer"}


class RequestFailed(Exception):
    """There was no answer, or none that was expected. It may be tried again."""


class RequestRefused(RequestFailed):
    """The server refuses the request as it is, or it may not be sent. It is not tried again."""


class _Request(NamedTuple):
    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes | None


@task(retry_rules={RequestRefused: RetryRule(0), InvalidOption: RetryRule(0)})
def http(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: str | bytes | None = None,
    json: Any = None,
    timeout_s: float = 30,
    max_bytes: int = _MOST_BYTES,
    expect: list[int] | None = None,
    redirects: int = 0,
) -> dict[str, Any]:
    """Send a request; return the answer's `status`, `headers` and `body`, whether the body was `cut` at
    `max_bytes`, the `url` that gave it (without its query), and the seconds that it `took_s`.

    The body is a str where it is UTF-8, else bytes. `timeout_s` is for all of it together. Any status
    from 200 to 299 is good, or those that are `expect`ed. 408, 425, 429, 500 and up, and a connection
    that fails are tried again, after the time that the server asks for (Retry-After, a day at most);
    any other status raises RequestRefused. So does a host with an address that is not public, unless
    categories.toml allows it. Up to `redirects` are followed, with each target checked.
    """
    began = time.monotonic()
    _check(timeout_s, max_bytes, redirects)
    request = _first(url, method, headers or {}, body, json)
    deadline, allow = Deadline(timeout_s), _allowed()
    for left in range(redirects, -1, -1):
        try:
            answer = exchange(*_arguments(request), most=max_bytes, allow=allow, deadline=deadline)
        except NotAllowed as error:
            raise RequestRefused(f"{request.target.shown}: {error}") from None
        except TimeoutError:
            raise RequestFailed(f"{request.target.shown}: no whole answer within {timeout_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise RequestFailed(f"{request.target.shown}: {_named(error)}") from None
        if _is_good(answer.status, expect):
            return {
                "status": answer.status,
                "headers": answer.headers,
                "body": _text(answer),
                "cut": answer.is_cut,
                "url": request.target.shown,
                "took_s": time.monotonic() - began,
            }
        if answer.status not in _REDIRECTS or not left:
            break
        request = _next(request, answer)
    raise _problem(request, answer, redirects)


def _arguments(request: _Request) -> tuple[Target, str, Mapping[str, str], bytes | None]:
    return request.target, request.method, request.headers, request.body


def _check(timeout_s: float, max_bytes: int, redirects: int) -> None:
    if not 0 < timeout_s <= _LONGEST_WAIT_S:
        raise InvalidOption(f"timeout_s must be above 0 and at most a day, got {timeout_s!r}")
    if not 0 <= max_bytes <= _MOST_BYTES:
        raise InvalidOption(f"max_bytes must be from 0 to {_MOST_BYTES}, got {max_bytes!r}")
    if not 0 <= redirects <= _MOST_REDIRECTS:
        raise InvalidOption(f"redirects must be from 0 to {_MOST_REDIRECTS}, got {redirects!r}")


def _allowed() -> Sequence[str]:
    """Return what the operator allows: what the configuration of this process says, which in a worker
    was read before any job.
    """
    try:
        return default_dispatcher().config.http.allow
    except ConfigError:  # called without any
        return ()


def _first(
    url: str, method: str, headers: Mapping[str, str], body: str | bytes | None, json: Any
) -> _Request:
    if not re.fullmatch(r"[A-Z]{1,20}", method) or method == "CONNECT":
        raise InvalidOption(f"method must be one like 'GET' or 'POST', got {method[:30]!r}")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise InvalidOption(f"headers: {name[:60]!r} cannot be set")
        if not _VALUE.fullmatch(value):
            raise InvalidOption(f"headers: the value of {name!r} holds a character that no header may")
    if json is not None:
        if body is not None:
            raise InvalidOption("body and json cannot both be sent: leave one out")
        body = dumps(json)
        if "content-type" not in {name.lower() for name in headers}:
            headers = {**headers, "Content-Type": "application/json"}
    return _Request(method, read_target(url), headers, body.encode() if isinstance(body, str) else body)


def _next(request: _Request, answer: Answer) -> _Request:
    """Return the request that a redirect asks for. Secrets stay with the origin that they were for."""
    location = answer.headers.get("location", "")
    before = request.target
    try:
        target = read_target(urljoin(f"{before.scheme}://{before.netloc}{before.path}", location))
    except (InvalidOption, ValueError) as error:
        raise RequestRefused(f"{before.shown} redirects to nowhere that can be used: {error}") from None
    if before.scheme == "https" and target.scheme == "http":
        raise RequestRefused(f"{before.shown} redirects from https to http, to {target.shown}")
    headers, method, body = request.headers, request.method, request.body
    if target.origin != before.origin:
        headers = {name: value for name, value in headers.items() if not _is_secret(name)}
    if answer.status in _GET_NEXT and method not in {"GET", "HEAD"}:
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return _Request(method, target, headers, body)


def _is_secret(name: str) -> bool:
    return is_secret_name(name) or name.lower() in {"cookie", "proxy-authorization"}


def _is_good(status: int, expect: Sequence[int] | None) -> bool:
    return status // 100 == 2 if expect is None else status in expect  # noqa: PLR2004 (the class 2xx)


def _text(answer: Answer) -> str | bytes:
    """Return a body as text where it is UTF-8; the last character may be cut."""
    for end in range(len(answer.body), max(-1, len(answer.body) - (4 if answer.is_cut else 1)), -1):
        with contextlib.suppress(UnicodeDecodeError):
            return answer.body[:end].decode()
    return answer.body


def _problem(request: _Request, answer: Answer, redirects: int) -> Exception:
    said = f"{request.method} {request.target.shown} was answered with status {answer.status}"
    if answer.status in _BUSY or answer.status >= _SERVER_ERROR:
        after_s = _retry_after_s(answer.headers.get("retry-after", ""))
        return RequestFailed(said) if after_s is None else Retry(said, after=after_s)
    if answer.status in _REDIRECTS:
        return RequestRefused(f"{said}, a redirect; `redirects` allows {redirects}")
    return RequestRefused(said)


def _retry_after_s(value: str) -> float | None:
    """Return the seconds that a server wants to be left alone; None when it does not say."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:12]), _LONGEST_WAIT_S))
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _LONGEST_WAIT_S)


def _named(error: Exception) -> str:
    """Return an error with the name of its class: some have no text of their own."""
    return f"{type(error).__name__}: {error}"

"""The keys of categories.toml: the field that each fills, and how its value is read."""

from __future__ import annotations

import ipaddress
import keyword
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from jobsched.allocation import PRIORITIES
from jobsched.config_values import StorePlace, WeighBy
from jobsched.duration import parse_duration
from jobsched.errors import nearest
from jobsched.rate import parse_rate
from jobsched.size import parse_size
from jobsched.toml_places import KeyPath, Problems

__all__ = [
    "BALANCER_KEYS",
    "CATEGORY_KEYS",
    "DEFAULT_STORE",
    "HTTP_KEYS",
    "PRESSURE_KEYS",
    "RETENTION_KEYS",
    "TOP_KEYS",
    "Key",
    "duration",
    "read_table",
    "show",
    "typed",
    "whole",
]

_DAY_S = 86_400.0
_MANY = 100_000_000

_Damping = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
_PRIORITY_RANGE = f"a number from {PRIORITIES[0]:.6f} to {PRIORITIES[1]:.0f}"
_Priority = Annotated[float, msgspec.Meta(ge=PRIORITIES[0], le=PRIORITIES[1])]
_Percent = Annotated[float, msgspec.Meta(ge=10, le=100)]


class Key(NamedTuple):
    """A key of the file: the field that it fills, and how its value is read.

    `read` raises ValueError saying what was expected. A key without `field` is read elsewhere.
    """

    field: str | None
    read: Callable[[Any], Any]


def read_table(report: Problems, path: KeyPath, table: Any, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Return the good fields of a table; the bad values and the unknown keys go to the report."""
    fields: dict[str, Any] = {}
    if not isinstance(table, dict):
        report.about(path, f"expected a table, got {show(table)}")
        return fields
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            report.about((*path, name), f"unknown key{_hint(path, name, value, keys)}")
        elif key.field is not None:
            try:
                fields[key.field] = key.read(value)
            except ValueError as error:
                report.about((*path, name), str(error))
    return fields


_NAMED = {"categories": "category", "schedules": "schedule"}  # the tables whose keys are names


def _hint(path: KeyPath, name: str, value: Any, keys: Mapping[str, Key]) -> str:
    """Say what an unknown key may have been meant to be."""
    if path and path[0] in _NAMED and isinstance(value, dict):
        kind, full = _NAMED[path[0]], f"{path[1]}.{name}"
        return f'; a {kind} name with a dot is quoted: [{path[0]}."{full}"]'
    return nearest(name, keys)


def typed(kind: Any, expected: str, first: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return the reader of a value of a type, as msgspec checks it after a first conversion."""

    def read(value: Any) -> Any:
        converted = first(value) if first else value
        try:
            return msgspec.convert(converted, kind)
        except msgspec.ValidationError:
            raise ValueError(f"expected {expected}, got {show(value)}") from None

    return read


def duration(low: float, high: float, expected: str) -> Callable[[Any], float]:
    """Return the reader of a duration within bounds, in seconds."""
    return typed(Annotated[float, msgspec.Meta(ge=low, le=high)], expected, parse_duration)


def _size(low: int, high: int, expected: str) -> Callable[[Any], int]:
    """Return the reader of a size within bounds, in bytes."""
    return typed(Annotated[int, msgspec.Meta(ge=low, le=high)], expected, parse_size)


def _unless(word: str, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the reader of a value in whose place a word may stand, which is read as None."""

    def read_or_none(value: Any) -> Any:
        if value == word:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(f"{error}; {word!r} lifts the limit") from None

    return read_or_none


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Return the reader of a whole number within bounds."""
    kind = Annotated[int, msgspec.Meta(ge=low, le=high)]
    return typed(kind, f"a whole number from {low} to {high}")


_percent = typed(_Percent, "a number of percent from 10 to 100")
_kept = _unless("forever", duration(0, 3650 * _DAY_S, "a duration of at most 3650d"))

_LMDB_OR_MEMORY = "expected 'lmdb:FOLDER' or 'memory:'"
DEFAULT_STORE = StorePlace("lmdb", Path(".jobsched"))


def _read_store(value: Any) -> StorePlace:
    """Return a store's place, its path as written. Shows no more of a URL than its scheme."""
    if not isinstance(value, str) or ":" not in value:
        raise ValueError(f"{_LMDB_OR_MEMORY}, got {show(value)}")
    scheme, _, rest = value.partition(":")
    if scheme in {"postgresql", "postgres"}:
        raise ValueError(f"{scheme}:// is not available in this version; use lmdb:")
    if scheme == "memory" and not rest:
        return StorePlace("memory", DEFAULT_STORE.path)
    if scheme != "lmdb":
        raise ValueError(f"{_LMDB_OR_MEMORY}, got {show(f'{scheme}:' + ('...' if rest else ''))}")
    if not rest or rest != rest.strip() or not rest.isprintable() or rest.startswith(("//", "~")):
        raise ValueError(
            f"expected a folder like 'lmdb:.jobsched' or 'lmdb:/var/lib/jobs', got {show(value)}"
        )
    return StorePlace("lmdb", Path(rest))


def _read_tasks(value: Any) -> tuple[str, ...]:
    """Return the names of the task modules."""
    modules: tuple[str, ...] = typed(tuple[str, ...], "a list of module names like ['shop.tasks']")(value)
    if not modules:
        raise ValueError("expected at least one module name like 'shop.tasks', got none")
    wrong = [module for module in modules if not _is_module(module)]
    if wrong:
        raise ValueError(f"expected module names like 'shop.tasks', got {', '.join(map(show, wrong))}")
    twice = [module for module, count in Counter(modules).items() if count > 1]
    if twice:
        raise ValueError(f"named more than once: {', '.join(map(show, twice))}")
    return modules


def _read_hooks(value: Any) -> tuple[str, ...]:
    """Return the names of callables."""
    expected = "a list of callables like ['shop.hooks:on_event']"
    hooks: tuple[str, ...] = typed(tuple[str, ...], expected)(value)
    wrong = [hook for hook in hooks if hook.count(":") != 1 or not all(map(_is_module, hook.split(":")))]
    if wrong:
        raise ValueError(f"expected {expected}, got {', '.join(map(show, wrong))}")
    if len(set(hooks)) < len(hooks):
        raise ValueError("named more than once: each is called once with an event")
    return hooks


def _is_module(name: str) -> bool:
    """Return whether a text is a module's full name."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+$)[a-z0-9_-]{1,63}")


def _read_allowed(value: Any) -> tuple[str, ...]:
    """Return addresses, networks and names of hosts."""
    expected = "a list of addresses, networks and host names like ['10.1.0.0/16', 'hooks.internal']"
    entries: tuple[str, ...] = typed(tuple[str, ...], expected)(value)
    for entry in entries:
        if _HOST.fullmatch(entry):
            continue
        try:
            ipaddress.ip_network(entry)
        except ValueError as error:
            raise ValueError(f"expected {expected}, got {show(entry)}: {error}") from None
    return entries


def show(value: Any) -> str:
    """Return a value as a message shows it: nearly as TOML writes it, and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 (most of a line)


_elsewhere = Key(None, show)

TOP_KEYS = {
    "store": Key("store", _read_store),
    "workers": Key("workers", whole(1, 10_000)),
    "tasks": Key("tasks", _read_tasks),
    "hooks": Key("hooks", _read_hooks),
    "grace": Key("grace_s", duration(0, _DAY_S, "a duration of at most 1d")),
    "quota": Key("quota_bytes", _size(1 << 20, 60 << 30, "a size from 1MiB to 60GiB")),
    "balancer": _elsewhere,
    "retention": _elsewhere,
    "pressure": _elsewhere,
    "http": _elsewhere,
    "categories": _elsewhere,
    "schedules": _elsewhere,
}

BALANCER_KEYS = {
    "every": Key("every_s", duration(0.05, 3600, "a duration from 50ms to 1h")),
    "weigh_by": Key("weigh_by", typed(WeighBy, "'backlog' or 'work'")),
    "damping": Key("damping", typed(_Damping, "a number from 0 to 10000")),
}

RETENTION_KEYS = {
    "completed": Key("completed_s", _kept),
    "failed": Key("failed_s", _kept),
    "cancelled": Key("cancelled_s", _kept),
    "keep": Key("keep", _unless("all", whole(0, _MANY))),
}

PRESSURE_KEYS = {
    "max_cpu": Key("max_cpu", _percent),
    "max_memory": Key("max_memory", _percent),
}

HTTP_KEYS = {
    "allow": Key("allow", _read_allowed),
}

CATEGORY_KEYS = {
    "priority": Key("priority", typed(_Priority, _PRIORITY_RANGE)),
    "min_workers": Key("min_workers", whole(0, 10_000)),
    "max_workers": Key("max_workers", whole(1, 10_000)),
    "max_retries": Key("max_retries", whole(0, 1_000_000)),
    "timeout": Key("timeout_s", duration(0.001, 365 * _DAY_S, "a duration from 1ms to 365d")),
    "kill_after": Key("kill_after_s", duration(0, 3600, "a duration of at most 1h")),
    "max_pending": Key("max_pending", whole(1, _MANY)),
    "rate": Key("rate", parse_rate),
    "max_memory": Key("max_memory_bytes", _size(16 << 20, 1 << 50, "a size of at least 16MiB")),
    "max_jobs_per_worker": Key("max_jobs_per_worker", whole(1, _MANY)),
    "max_worker_age": Key("max_worker_age_s", duration(1, 365 * _DAY_S, "a duration from 1s to 365d")),
}

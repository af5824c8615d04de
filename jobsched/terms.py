"""On which terms a job runs, as a dispatch or a task says it, and as the store keeps it."""

from __future__ import annotations

from typing import Literal

import msgspec

from jobsched.errors import InvalidOption
from jobsched.job import Limit

__all__ = ["ConcurrencyLimit", "Unique", "key_limit", "schedule_limit", "task_limit", "unique_key"]

_MAX_KEY = 1000
_MOST = 1_000_000


class Unique(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most one job of a task with the same key that waits or, `until` its "end", runs; until its
    "start" only one that waits.

    `key` None is made of the job's arguments. `on_conflict` says what a dispatch does that finds the
    key taken: "keep" returns the handle of the job that has it, "refuse" raises DuplicateJob,
    "replace" cancels that job for the new one if it waits, and keeps it if it runs.
    """

    key: str | None = None
    until: Literal["end", "start"] = "end"
    on_conflict: Literal["keep", "refuse", "replace"] = "keep"

    def __post_init__(self) -> None:
        if self.key is not None and not (isinstance(self.key, str) and 0 < len(self.key) <= _MAX_KEY):
            raise InvalidOption(f"a unique key must be 1 to {_MAX_KEY} characters, got {self.key!r}")
        if self.until not in ("end", "start"):
            raise InvalidOption(f"until must be 'end' or 'start', got {self.until!r}")
        if self.on_conflict not in ("keep", "refuse", "replace"):
            raise InvalidOption(
                f"on_conflict must be 'keep', 'refuse' or 'replace', got {self.on_conflict!r}"
            )


class ConcurrencyLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `max_running` of the jobs that carry this key run at the same time, of whatever task
    and category. The job dispatched last says how many.
    """

    key: str
    max_running: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.key, str) and 0 < len(self.key) <= _MAX_KEY):
            raise InvalidOption(f"the key of a limit must be 1 to {_MAX_KEY} characters, got {self.key!r}")
        if isinstance(self.max_running, bool) or not isinstance(self.max_running, int):
            raise InvalidOption(f"max_running must be a whole number, got {self.max_running!r}")
        if not 0 < self.max_running <= _MOST:
            raise InvalidOption(f"max_running must be from 1 to {_MOST:,}, got {self.max_running!r}")


def unique_key(task: str, unique: Unique, arguments: bytes) -> bytes:
    """Return the hash under which the store knows a unique key: keys of two tasks never meet."""
    key = arguments if unique.key is None else unique.key.encode()
    kind = b"arguments" if unique.key is None else b"key"
    return _hash(b"unique", task.encode(), kind, key)


def task_limit(task: str, most: int) -> Limit:
    """Return the limit of a task."""
    return Limit(_hash(b"task", task.encode()), most)


def key_limit(limit: ConcurrencyLimit) -> Limit:
    """Return the limit of a key."""
    return Limit(_hash(b"key", limit.key.encode()), limit.max_running)


def schedule_limit(name: str) -> Limit:
    """Return the limit of a schedule whose jobs run one after the other."""
    return Limit(_hash(b"schedule", name.encode()), 1)


def _hash(*parts: bytes) -> bytes:
    from hashlib import blake2b  # noqa: PLC0415 (slow to import, and for unique jobs alone)

    return blake2b(b"\0".join(parts), digest_size=16).digest()

"""What the jobs of one dispatch have in common, checked once however many they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from jobsched.clock import MICROSECONDS
from jobsched.codec import encode_arguments, encode_positional
from jobsched.definition import TaskDefinition
from jobsched.errors import InvalidOption
from jobsched.job import NO_TERMS, Terms
from jobsched.named import TaskLike, identify
from jobsched.options import (
    checked_at,
    checked_category,
    checked_delay,
    checked_name,
    checked_period,
    checked_priority,
    checked_retries,
)
from jobsched.store.base import Conflict
from jobsched.terms import ConcurrencyLimit, Unique, key_limit, unique_key

if TYPE_CHECKING:
    from jobsched.config import Config

__all__ = ["Draft", "draft"]

_SILENT = TaskDefinition(name="", function=print)  # says nothing of its jobs: of a task not known here


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A job of a task but for its id and its arguments. `delay_s` counts from its dispatch; `definition` is
    None where this process does not know the task; `common_terms` are those that do not depend on the
    arguments.
    """

    definition: TaskDefinition | None
    task: str
    category: str
    priority: int
    delay_s: float
    at: int
    name: str | None
    max_retries: int | None
    timeout_s: float | None
    expires_in_s: float | None
    unique: Unique | None
    common_terms: Terms

    @property
    def by_name(self) -> bool:
        """Whether this process does not know the task."""
        return self.definition is None

    @property
    def on_conflict(self) -> Conflict:
        """What is done when the unique key is taken."""
        return self.unique.on_conflict if self.unique else "keep"

    def packed(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return arguments encoded, by position and by name. Raises ArgumentError if the task cannot be
        called with them, or they cannot be sent; PayloadTooLarge.
        """
        definition = self.definition
        if definition is None:
            return encode_arguments(self.task, args, kwargs)
        definition.check(args, kwargs)
        return encode_arguments(self.task, args, kwargs, definition.parameters)

    def packed_plainly(self, each: Sequence[Any]) -> list[bytes] | None:
        """Return the arguments of many jobs encoded, in a fifth of the time: those that are tuples or lists
        of arguments by position, and nothing else; None where one of them needs a closer look.
        """
        if not {tuple, list}.issuperset(map(type, each)):
            return None
        counts = [len(args) for args in each]
        if self.definition is not None and not self.definition.takes(min(counts), max(counts)):
            return None
        return encode_positional(each)

    def terms(self, args: bytes, kwargs: bytes) -> Terms:
        """Return the terms of a job with these arguments, but for its expiry."""
        unique = self.unique
        if unique is None:
            return self.common_terms
        return msgspec.structs.replace(
            self.common_terms,
            unique=unique_key(self.task, unique, args + kwargs),
            frees_at_start=unique.until == "start",
            is_partial=self.definition is None,
        )

    def expiring(self, terms: Terms, now: int) -> Terms | None:
        """Return the terms of a job that is dispatched now (UTC microseconds), None where it has none."""
        if self.expires_in_s is not None:
            expires_at = now + int(self.expires_in_s * MICROSECONDS)
            return msgspec.structs.replace(terms, expires_at=expires_at, is_partial=self.definition is None)
        return None if terms is NO_TERMS or terms == NO_TERMS else terms

    def due_at(self, now: int) -> int:
        """Return when a job is due that is dispatched now (UTC microseconds): 0 for at once."""
        return self.at or (now + int(self.delay_s * MICROSECONDS) if self.delay_s else 0)


def draft(  # noqa: PLR0917 (a dispatch of its own makes one for each job, and names take time)
    config: Config,
    task: TaskLike,
    category: str | None,
    delay: float | timedelta,
    at: datetime | None,
    priority: int | None,
    max_retries: int | None,
    timeout: float | timedelta | None,
    expires_in: float | timedelta | None,
    unique: str | Unique | None,
    limit: ConcurrencyLimit | None,
    at_most_once: bool | None,  # noqa: FBT001
    name: str | None,
) -> Draft:
    """Check the options of a dispatch. Takes and raises what `Dispatcher.dispatch` does, but for what
    concerns arguments.
    """
    definition, task_name = identify(task, config.tasks)
    own = definition or _SILENT
    category = category or own.category
    if category is None:
        raise InvalidOption(f"task {task_name!r} has no category of its own: pass one")
    if type(category) is not str or category not in config.categories:
        config.category(checked_category(category))
    expires_in = expires_in or own.expires_in_s
    return Draft(
        definition,
        task_name,
        category,
        own.priority if priority is None else checked_priority(priority),
        0.0 if type(delay) is int and not delay else checked_delay(delay, at),
        0 if at is None else checked_at(at),
        None if name is None else checked_name(name),
        None if max_retries is None else checked_retries(max_retries),
        None if timeout is None else checked_period("timeout", timeout),
        None if expires_in is None else checked_period("expires_in", expires_in),
        Unique(key=unique) if isinstance(unique, str) else unique or own.unique,
        _common_terms(definition, limit, at_most_once),
    )


def _common_terms(
    definition: TaskDefinition | None,
    limit: ConcurrencyLimit | None,
    at_most_once: bool | None,  # noqa: FBT001
) -> Terms:
    """Return the terms of jobs but for what depends on their arguments, and their expiry."""
    terms = definition.terms() if definition else NO_TERMS
    if limit is None and at_most_once is None:
        return terms
    return Terms(
        at_most_once=terms.at_most_once if at_most_once is None else at_most_once,
        limits=terms.limits if limit is None else (*terms.limits, key_limit(limit)),
        is_partial=definition is None,
    )

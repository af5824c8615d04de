"""Which jobs a command is about: ``--where 'state=failed, category=mail, age>1h'``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

from jobsched.clock import MICROSECONDS
from jobsched.codec import BadRecord, decode_record
from jobsched.duration import parse_duration
from jobsched.errors import InvalidOption, nearest
from jobsched.job import JobRecord, State
from jobsched.job_id import part_of_id
from jobsched.store.base import StoredJob

__all__ = ["Where", "parse_state", "parse_where"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Conditions on a job, all of which must hold.

    `states` and `category` narrow the scan: no job of another state or category matches. The
    category is None where more than one may match.
    """

    states: frozenset[State]
    category: str | None
    checks: tuple[_Check, ...]

    def matches(self, job: StoredJob) -> bool:
        """Return whether a job meets every condition. Where its record is damaged, no condition on
        its task or its name holds, nor on the age of one that has not ended.
        """
        seen = _Seen(job)
        return job.status.state in self.states and all(check(seen) for check in self.checks)


def parse_where(texts: Sequence[str], now: int) -> Where:
    """Return the conditions that texts hold; without any, every job matches.

    A text is one or more ``KEY OP VALUE``, with commas or ``and`` between them; a value with
    commas may be quoted. ``now`` is UTC microseconds. Raises InvalidOption.

    | key | operators | value |
    |---|---|---|
    | state | = != | a state, or several: ``failed|parked`` |
    | category, task, name | = != | a text or several with ``|``; ``*`` stands for anything |
    | error | = != ~ | the error's line; with ``~`` a part of it, whatever its case |
    | age | > >= < <= | a duration since the job ended, or since its dispatch if it has not |
    | attempt, priority | = != > >= < <= | a whole number |
    | id | = | the beginning of the job's id, 6 digits or more |
    """
    states = frozenset(State)
    category: str | None = None
    checks: list[_Check] = []
    for condition in (condition for text in texts for condition in _split(text)):
        if condition.key == "state":
            states &= _states(condition)
            continue
        checks.append(_KEYS[condition.key].check(condition, now))
        if condition.key == "category" and condition.op == "=" and not _SPECIAL.search(condition.value):
            category = condition.value
    return Where(states=states, category=category, checks=tuple(checks))


def parse_state(text: str) -> State:
    """Return the state of a name, as people may write it. Raises InvalidOption with the nearest."""
    name = text.strip().lower().replace("-", "_").replace(" ", "_")
    known = {str(state): state for state in State}
    if name not in known:
        raise InvalidOption(f"unknown state {text!r}{nearest(name, known)}")
    return known[name]


class _Seen:
    """A job as the conditions look at it: its record is decoded once, and only if one asks."""

    def __init__(self, job: StoredJob) -> None:
        self.job = job
        self.status = job.status

    @cached_property
    def record(self) -> JobRecord | None:
        """The immutable part; None where it is damaged."""
        try:
            return decode_record(self.job.record) if self.job.record else None
        except BadRecord:
            return None

    @property
    def category(self) -> str | None:
        return self.status.category or (self.record.category if self.record else None)

    @property
    def task(self) -> str | None:
        return self.record.task if self.record else None

    @property
    def name(self) -> str | None:
        """The name, empty without one; None where it is not known."""
        return self.record.name or "" if self.record else None

    @property
    def error(self) -> str:
        return self.job.error.cause if self.job.error else ""

    @property
    def since(self) -> int | None:
        """When the job ended or was set aside, else when it was dispatched; None if not known."""
        if self.status.state not in _ON_THEIR_WAY and self.status.ended_at:
            return self.status.ended_at
        return self.record.dispatched_at if self.record else None


_Check = Callable[[_Seen], bool]
_ON_THEIR_WAY = {State.SCHEDULED, State.PENDING, State.IN_PROGRESS}
_SPECIAL = re.compile(r"[*?\[|]")


class _Condition(NamedTuple):
    """One ``KEY OP VALUE``, and how it was written."""

    key: str
    op: str
    value: str
    text: str


_CONDITION = re.compile(
    r"""
    \s* (?P<whole>
      (?P<key> [A-Za-z_]+ ) \s* (?P<op> >= | <= | != | == | [=~<>] ) \s*
      (?: "(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<plain>.*?) )
    ) \s*
    (?: $ | (?: , | (?<=\s)(?i:and)(?=\s) ) (?= \s* [A-Za-z_]+ \s* [<>=~!] ) )
    """,
    re.VERBOSE | re.DOTALL,
)


def _split(text: str) -> Iterator[_Condition]:
    """Yield the conditions of a text. A comma that no condition follows belongs to a value."""
    at = 0
    while at < len(text) or not at:
        match = _CONDITION.match(text, at)
        if match is None:
            raise InvalidOption(
                f"{text[at:].strip()!r} is no condition, "
                "expected one like state=failed, category=mail or age>1h"
            )
        quoted = match["single"] if match["double"] is None else match["double"]
        yield _checked(match["key"].lower(), match["op"], match["plain"], quoted, match["whole"])
        at = match.end()


def _checked(key: str, op: str, plain: str | None, quoted: str | None, text: str) -> _Condition:
    """Return a condition whose key exists and takes the operator."""
    if key not in _KEYS:
        raise InvalidOption(f"{text!r}: unknown key {key!r}{nearest(key, _KEYS)}")
    op = "=" if op == "==" else op
    known = _KEYS[key].ops
    if op not in known:
        raise InvalidOption(f"{text!r}: {key} takes {' or '.join(known)}, not {op}")
    if quoted is None and not plain:
        raise InvalidOption(f"{text!r}: a value is missing, like {_KEYS[key].example}")
    return _Condition(key, op, quoted if quoted is not None else plain or "", text)


def _states(condition: _Condition) -> frozenset[State]:
    """Return the states in which a condition on the state holds."""
    named = frozenset(parse_state(name) for name in condition.value.split("|"))
    return named if condition.op == "=" else frozenset(State) - named


def _on_text(condition: _Condition, _now: int) -> _Check:
    """Check the category, the task or the name against patterns."""
    patterns = [pattern.strip() for pattern in condition.value.split("|")]
    key, is_wanted = condition.key, condition.op == "="

    def check(seen: _Seen) -> bool:
        text = getattr(seen, key)
        return text is not None and is_wanted is any(fnmatchcase(text, pattern) for pattern in patterns)

    return check


def _on_error(condition: _Condition, _now: int) -> _Check:
    """Check the line that says why the last run did not complete."""
    value, part = condition.value, condition.value.casefold()
    if condition.op == "~":
        return lambda seen: part in seen.error.casefold()
    return lambda seen: (seen.error == value) is (condition.op == "=")


def _on_age(condition: _Condition, now: int) -> _Check:
    """Check the time since the end, or the dispatch."""
    try:
        limit = parse_duration(condition.value) * MICROSECONDS
    except ValueError as error:
        raise InvalidOption(f"{condition.text!r}: {error}") from None
    compare = _COMPARE[condition.op]
    return lambda seen: seen.since is not None and compare(now - seen.since, limit)


def _on_number(condition: _Condition, _now: int) -> _Check:
    """Check the attempt or the priority."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", condition.value):
        raise InvalidOption(f"{condition.text!r}: expected a whole number, got {condition.value!r}")
    key, compare, limit = condition.key, _COMPARE[condition.op], int(condition.value)
    return lambda seen: compare(getattr(seen.status, key), limit)


def _on_id(condition: _Condition, _now: int) -> _Check:
    """Check the beginning of the id."""
    try:
        digits = part_of_id(condition.value)
    except ValueError as error:
        raise InvalidOption(f"{condition.text!r}: {error}") from None
    return lambda seen: seen.job.id.hex().startswith(digits)


def _never(condition: _Condition, _now: int) -> _Check:
    """Stand for the key whose conditions are a set, not a check."""
    raise AssertionError(condition)


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class _Key(NamedTuple):
    """What a key takes, and how its check is made."""

    ops: tuple[str, ...]
    check: Callable[[_Condition, int], _Check]
    example: str


_IS = ("=", "!=")

_KEYS = {
    "state": _Key(_IS, _never, "state=failed"),
    "category": _Key(_IS, _on_text, "category=mail"),
    "task": _Key(_IS, _on_text, "task=shop.tasks:*"),
    "name": _Key(_IS, _on_text, "name=import-*"),
    "error": _Key((*_IS, "~"), _on_error, "error~timeout"),
    "age": _Key((">", ">=", "<", "<="), _on_age, "age>1h"),
    "attempt": _Key(tuple(_COMPARE), _on_number, "attempt>=3"),
    "priority": _Key(tuple(_COMPARE), _on_number, "priority>0"),
    "id": _Key(("=",), _on_id, "id=01936c4e"),
}

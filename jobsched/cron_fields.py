"""The fields of a cron expression: what is accepted, and what is refused since dialects read it differently.

Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday). With seconds there are
six, the seconds first, as in Quartz and Spring. A field is ``*``, ``*/N``, or a list of values, ranges
and ranges with a step; months and days of the week have names. Beyond crontab(5): ``?`` for ``*`` in a
day field, ``L`` the last day of the month, ``15W`` the weekday nearest to a day, ``MON#2`` the second
Monday, ``L5`` the last Friday.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from jobsched.errors import InvalidOption

__all__ = ["KINDS", "NICKNAMES", "CronFields", "FieldKind", "field_values", "parse_fields"]

_MOST = 256  # characters: longer ones take croniter more than a moment
_FIELDS = 5
_ANY = ("*", "?")
_ALL_HAVE = 28  # the last day that each month has

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class FieldKind(NamedTuple):
    """What a field is called, its least and greatest value, and the names of its values from the least on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
KINDS = {
    "second": FieldKind("second", 0, 59),
    "minute": FieldKind("minute", 0, 59),
    "hour": FieldKind("hour", 0, 23),
    "day": FieldKind("day of month", 1, 31),
    "month": FieldKind("month", 1, 12, _MONTHS),
    "weekday": FieldKind("day of week", 0, 7, _WEEKDAYS),
}


class CronFields(NamedTuple):
    """The checked fields of an expression, in upper case; `second` is "0" where there is none."""

    second: str
    minute: str
    hour: str
    day: str
    month: str
    weekday: str

    @property
    def follows_real_time(self) -> bool:
        """Say whether the hour begins with ``*``: such a job has a rhythm, the others an hour."""
        return self.hour.startswith("*")

    @property
    def takes_either_day(self) -> bool:
        """Say whether either of the two days suffices: neither begins with ``*``, as in Vixie's cron."""
        return self.day[0] not in "*?" and self.weekday[0] not in "*?"

    @property
    def comes_each_month(self) -> bool:
        """Say whether each month is seen to have such a day, without a look at the calendar."""
        days, weekdays = (
            field_values(field, KINDS[kind]) for field, kind in ((self.day, "day"), (self.weekday, "weekday"))
        )
        if self.weekday in _ANY:
            return min(days, default=_ALL_HAVE + 1) <= _ALL_HAVE
        return self.day in _ANY and bool(weekdays)


def parse_fields(text: str, *, seconds: bool) -> CronFields:
    """Return the fields of an expression. Raises InvalidOption for what is none or may mean two things."""
    if not isinstance(text, str) or len(text) > _MOST:
        raise InvalidOption(
            f"a cron expression is a text of up to {_MOST} characters, got {str(text)[:80]!r}"
        )
    words = _words(text, seconds=seconds)
    fields = CronFields(*(word.upper() for word in words))
    for key, field in fields._asdict().items():
        _check(field, KINDS[key], text)
    if fields.takes_either_day and _has_special_day(fields):
        _refuse(text, f"{fields.day!r} with {fields.weekday!r} may mean both or either: let one of them be *")
    return fields


def _words(text: str, *, seconds: bool) -> list[str]:
    """Return six words, the seconds first."""
    nickname = NICKNAMES.get(text.strip().lower())
    if nickname:
        return ["0", *nickname.split()]
    if text.strip().startswith("@"):
        _refuse(text, f"expected one of {', '.join(NICKNAMES)}")
    words = text.split()
    if len(words) != _FIELDS + seconds:
        hint = "; six mean seconds first: pass seconds=True" if len(words) == _FIELDS + 1 else ""
        _refuse(text, f"expected {_FIELDS + seconds} fields, got {len(words)}{hint}")
    return words if seconds else ["0", *words]


_STEPPED = re.compile(r"\*/(\d+)", re.ASCII)
_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?", re.ASCII)
_NEAREST = re.compile(r"(\d+)W|W(\d+)", re.ASCII)
_NTH = re.compile(r"(\w+)#(\d+)", re.ASCII)
_LAST = re.compile(r"L(\d)", re.ASCII)
_BY_CHANCE = re.compile(r"[RH](\(.*\))?(/.*)?", re.ASCII)
_WEEKS = 5


def _check(field: str, kind: FieldKind, text: str) -> None:
    if field == "*" or (field == "?" and kind.name.startswith("day")):
        return
    parts = field.split(",")
    for part in parts:
        _check_part(part, kind, text, alone=len(parts) == 1)
    nth = [part for part in parts if _is_nth(part, kind)]
    if nth and len(nth) < len(parts):
        _refuse(text, f"{field!r} mixes days of every week with {nth[0]!r}: use two schedules")


def _check_part(part: str, kind: FieldKind, text: str, *, alone: bool) -> None:
    """Refuse what is no part of a field, and what croniter takes but others read differently."""
    if stepped := _STEPPED.fullmatch(part):
        if not alone:
            _refuse(text, f"{kind.name} {part!r} must stand alone")
        _check_step(stepped[1], kind, text)
    elif found := _RANGE.fullmatch(part):
        _check_range(found, part, kind, text)
    elif kind is KINDS["day"] and part == "L":
        pass
    elif kind is KINDS["day"] and (found := _NEAREST.fullmatch(part)):
        if not alone:
            _refuse(text, f"{part!r} must stand alone")
        _number(found[1] or found[2], kind, text)
    elif _is_nth(part, kind):
        _check_nth(part, kind, text)
    elif _BY_CHANCE.fullmatch(part):
        _refuse(text, f"{part!r} is drawn by chance, and anew at each start: write a number")
    elif "/" in part:
        _refuse(text, f"a step needs a range, {part!r} has none: write {_with_range(part, kind)}")
    else:
        _number(part, kind, text)


def _with_range(part: str, kind: FieldKind) -> str:
    """Return what a value with a step means to those that take it."""
    first, _, step = part.partition("/")
    if first == str(kind.high):
        return first
    return f"{first}-{kind.high}/{step}" if first.isdigit() or first in kind.names else f"*/{step}"


def _check_step(step: str, kind: FieldKind, text: str) -> None:
    if int(step) < 1:
        _refuse(text, f"a step is 1 or more, got {step!r} for the {kind.name}")


def _check_range(found: re.Match[str], part: str, kind: FieldKind, text: str) -> None:
    low, high = _ends(found, kind, text)
    if low == high:
        _refuse(text, f"{part!r} is no range: write {found[1]!r}")
    if low > high:
        _refuse(text, f"the range {part!r} goes backwards: write its values, separated by commas")
    _check_step(found[3] or "1", kind, text)


def _ends(found: re.Match[str], kind: FieldKind, text: str) -> tuple[int, int]:
    """Return the ends of a range; Sunday at its end is the seventh day."""
    low, high = _number(found[1], kind, text), _number(found[2], kind, text)
    return (low, 7) if found[2] == _WEEKDAYS[0] and low else (low, high)


def _check_nth(part: str, kind: FieldKind, text: str) -> None:
    day, _, week = part.partition("#")
    _number(day.removeprefix("L") if not week else day, kind, text)
    if week and not 1 <= int(week) <= _WEEKS:
        _refuse(text, f"{part!r} must name the 1st to the 5th of a month")


def _is_nth(part: str, kind: FieldKind) -> bool:
    return kind is KINDS["weekday"] and bool(_NTH.fullmatch(part) or _LAST.fullmatch(part))


def _has_special_day(fields: CronFields) -> bool:
    """Say whether a day is written so that croniter cannot take it as one of two that suffice."""
    return bool(_NEAREST.fullmatch(fields.day)) or _is_nth(fields.weekday.split(",")[0], KINDS["weekday"])


def _number(word: str, kind: FieldKind, text: str) -> int:
    if word in kind.names:
        return kind.names.index(word) + kind.low
    if not (word.isascii() and word.isdigit()):
        names = f" or a name like {kind.names[1]}" if kind.names else ""
        _refuse(text, f"{kind.name} must be from {kind.low} to {kind.high}{names}, got {word!r}")
    if not kind.low <= int(word) <= kind.high:
        _refuse(text, f"{kind.name} must be from {kind.low} to {kind.high}, got {word}: out of range")
    return int(word)


def _refuse(text: str, reason: str) -> NoReturn:
    raise InvalidOption(f"cron {text!r}: {reason}")


def field_values(field: str, kind: FieldKind) -> frozenset[int]:
    """Return the numbers that a checked field stands for; days that depend on the month are none of them."""
    return frozenset(_values(field, kind))


def _values(field: str, kind: FieldKind) -> Iterator[int]:
    for part in field.split(","):
        if part in "*?":
            yield from range(kind.low, kind.high + 1)
        elif stepped := _STEPPED.fullmatch(part):
            yield from range(kind.low, kind.high + 1, int(stepped[1]))
        elif found := _RANGE.fullmatch(part):
            low, high = _ends(found, kind, field)
            yield from range(low, high + 1, int(found[3] or 1))
        elif part in kind.names or part.isdigit():
            yield _number(part, kind, field)

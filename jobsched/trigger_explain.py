"""The next due times of a trigger, and what the changes of a zone's clock do to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice

from jobsched.clock_face import ClockFace
from jobsched.cron_text import CronText
from jobsched.trigger import Cron, Trigger, in_utc

__all__ = ["DueTime", "explain", "left_out_faces"]

_NAMED = 3  # times of the clock's face that a note names
_COUNTED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTime:
    """One row: when a trigger fires.

    `at` is in UTC, `local` the same time as the clock of the trigger's zone shows it, with its offset.
    `after_s` are the seconds since the one before, None for the first. `note` says what a change of the
    clock does here, "" where it does nothing.
    """

    at: datetime
    local: str
    after_s: float | None
    note: str


def explain(trigger: Trigger, start: datetime, count: int) -> list[DueTime]:
    """Return up to `count` due times after an aware time. Raises InvalidOption for a naive one."""
    rows: list[DueTime] = []
    before = in_utc("start", start)
    for at in islice(_firings(trigger, before), count):
        after_s = (at - before).total_seconds() if rows else None
        rows.append(
            DueTime(at=at, local=_local(trigger, at), after_s=after_s, note=_note(trigger, before, at))
        )
        before = at
    return rows


def _firings(trigger: Trigger, now: datetime) -> Iterator[datetime]:
    at = trigger.next_after(now)
    while at is not None:
        at = in_utc("next_after", at)  # of a trigger of the user's
        yield at
        at = trigger.next_after(at)


def _local(trigger: Trigger, at: datetime) -> str:
    local = trigger.parts()[1].local(at) if isinstance(trigger, Cron) else at
    return local.isoformat(" ")


def _note(trigger: Trigger, before: datetime, at: datetime) -> str:
    if not isinstance(trigger, Cron):
        return ""
    text, clock = trigger.parts()
    face = clock.at(at)
    shown = _text(face, face.date())
    left_out = left_out_faces(text, clock, before, at)
    missing = f"the clock leaves out {_listed(left_out, face.date())}"
    if text.fields.follows_real_time:
        notes = [f"skipped: {missing}"] if left_out else []
        if clock.comes_twice(face):
            which = "second" if clock.is_second_time(at) else "first"
            notes.append(f"{shown} comes twice, both fire: the {which}")
        return "; ".join(notes)
    if not left_out:
        return f"{shown} comes twice, fires the first time only" if clock.comes_twice(face) else ""
    if text.next_from(face) == face:
        return f"{missing}, fires right after the jump, together with {shown}"
    return f"{missing}, fires right after the jump{', once for all' if len(left_out) > 1 else ''}"


def left_out_faces(text: CronText, clock: ClockFace, before: datetime, at: datetime) -> list[datetime]:
    """Return the times that an expression names and the clock jumps over between two firings of it.

    A hundred of them at most.
    """
    found: list[datetime] = []
    end = clock.at(at)
    face = text.next_after(clock.at(before))
    while face is not None and face < end and len(found) < _COUNTED:
        if clock.is_left_out(face):
            found.append(face)
        face = text.next_after(face)
    return found


def _listed(faces: list[datetime], today: date) -> str:
    named = ", ".join(_text(face, today) for face in faces[:_NAMED])
    more = f"{len(faces) - _NAMED} more" if len(faces) < _COUNTED else "many more"
    return f"{named} and {more}" if len(faces) > _NAMED else named


def _text(face: datetime, today: date) -> str:
    day = "" if face.date() == today else f"{face:%Y-%m-%d} "  # some zones have left out a whole day
    return day + (f"{face:%H:%M:%S}" if face.second else f"{face:%H:%M}")

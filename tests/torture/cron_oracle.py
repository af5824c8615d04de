"""When a cron expression fires, by looking at every minute of a stretch, or every second: the rule as it
is stated in docs/cron.md, with a parser of its own, and random expressions to try it on.
"""

import calendar
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
FIRST_YEAR, LAST_YEAR = 2024, 2037
MARGIN = timedelta(hours=3)  # before a stretch: what the clock has shown already
DAY = timedelta(days=1)


class Meaning:
    """Which times of a clock's face an expression of valid syntax means."""

    def __init__(self, text: str) -> None:
        words = text.upper().split()
        self.has_seconds = len(words) == len(LIMITS)
        self.words = words if self.has_seconds else ["0", *words]
        self.is_rhythm = self.words[2][0] == "*"
        self.seconds, self.minutes, self.hours, self.days, self.months, self.weekdays = (
            numbers(word, low, high) for word, (low, high) in zip(self.words, LIMITS, strict=True)
        )
        self._by_day: dict[date, bool] = {}

    def is_due(self, face: datetime) -> bool:
        return (
            face.second in self.seconds
            and face.minute in self.minutes
            and face.hour in self.hours
            and self.is_day(face.date())
        )

    def is_day(self, day: date) -> bool:
        if day not in self._by_day:
            self._by_day[day] = day.month in self.months and self._is_either_or_both(day)
        return self._by_day[day]

    def _is_either_or_both(self, day: date) -> bool:
        of_month, of_week = self.words[3], self.words[5]
        by_month = day.day in self.days or any(special_day(day, part) for part in of_month.split(","))
        by_week = bool({day.isoweekday() % 7, day.isoweekday()} & self.weekdays) or any(
            special_weekday(day, part) for part in of_week.split(",")
        )
        if of_month[0] in "*?" or of_week[0] in "*?":
            return by_month and by_week
        return by_month or by_week


def numbers(word: str, low: int, high: int) -> set[int]:
    """Return the plain numbers of a field."""
    found: set[int] = set()
    for part in word.split(","):
        span, _, step = part.partition("/")
        if span in ("*", "?"):
            found.update(range(low, high + 1, int(step or 1)))
        elif span[-1] != "-" and "-" in span:
            first, last = (number(end) for end in span.split("-"))
            found.update(range(first, (7 if span.endswith("-SUN") and first else last) + 1, int(step or 1)))
        elif span.isdigit() or span in MONTHS or span in WEEKDAYS:
            found.add(number(span))
    return found


def number(word: str) -> int:
    if word in WEEKDAYS:
        return WEEKDAYS.index(word)
    return MONTHS.index(word) + 1 if word in MONTHS else int(word)


def special_day(day: date, part: str) -> bool:
    """Say whether a day is the last of its month, or the weekday nearest to one within the month."""
    last = calendar.monthrange(day.year, day.month)[1]
    if part == "L":
        return day.day == last
    if "W" not in part:
        return False
    wanted = min(int(part.strip("W")), last)
    near = [one for one in range(1, last + 1) if day.replace(day=one).isoweekday() <= 5]
    return day.day == min(near, key=lambda one: abs(one - wanted))


def special_weekday(day: date, part: str) -> bool:
    """Say whether a day is the last, or the nth, such day of its month."""
    if "#" in part:
        name, _, week = part.partition("#")
        return number(name) % 7 == day.isoweekday() % 7 and (day.day - 1) // 7 + 1 == int(week)
    if part[0] == "L":
        is_last = day.day + 7 > calendar.monthrange(day.year, day.month)[1]
        return int(part[1]) % 7 == day.isoweekday() % 7 and is_last
    return False


# The clock, tick by tick.


class Tick(NamedTuple):
    """An instant, what the clock shows then, whether it has shown that before, what it has left out."""

    at: datetime
    face: datetime
    is_repeated: bool
    left_out: Sequence[datetime]


def ticks(zone: str, start: datetime, end: datetime, step: timedelta) -> list[Tick]:
    """Return the instants after `start` and up to `end`; the start must be a whole step."""
    clock = ZoneInfo(zone)
    at = start - MARGIN
    last = at.astimezone(clock).replace(tzinfo=None, fold=0)
    shown: set[datetime] = set()
    found = []
    while at < end:
        at += step
        face = at.astimezone(clock).replace(tzinfo=None, fold=0)
        left_out = [last + k * step for k in range(1, max(1, (face - last) // step))]
        if at > start:
            found.append(Tick(at, face, face in shown, left_out))
        shown.add(face)
        last = face
    return found


def firings(meaning: Meaning, clock_ticks: Sequence[Tick]) -> list[datetime]:
    """Return the instants at which an expression fires, by the rule."""
    if meaning.is_rhythm:
        return [tick.at for tick in clock_ticks if meaning.is_due(tick.face)]
    return [
        tick.at
        for tick in clock_ticks
        if any(map(meaning.is_due, tick.left_out)) or (not tick.is_repeated and meaning.is_due(tick.face))
    ]


def first_firings(
    meaning: Meaning, zone: str, start: datetime, limit: timedelta, count: int
) -> list[datetime]:
    """Return the first firings after `start`: every minute of the days that may hold one."""
    clock = ZoneInfo(zone)
    found: list[datetime] = []
    at = start
    while at < start + limit and len(found) < count:
        around = [(at + k * DAY / 2).astimezone(clock) for k in range(-3, 6)]
        is_plain = len({one.utcoffset() for one in around}) == 1
        if not is_plain or any(meaning.is_day(one.date()) for one in around):
            found += firings(meaning, ticks(zone, at, at + DAY, timedelta(minutes=1)))
        at += DAY
    return found[:count]


@cache
def changes(zone: str) -> list[datetime]:
    """Return the instants from 2024 to 2037 at which a zone changes its offset."""
    clock = ZoneInfo(zone)
    found = []
    at = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    before = at.astimezone(clock).utcoffset()
    while at.year <= LAST_YEAR:
        at += DAY
        offset = at.astimezone(clock).utcoffset()
        if offset != before:
            minutes = (at - DAY + timedelta(minutes=k) for k in range(1, 1441))
            found.append(next(one for one in minutes if one.astimezone(clock).utcoffset() != before))
        before = offset
    return found


# Random expressions.


def drawn_expression(rng: random.Random, *, seconds: bool = False, plain: bool = False) -> str:
    """Return a random expression; a plain one has only what Vixie's cron has, and no names."""
    fields = [
        drawn_field(rng, 0, 59, star=0.15),
        drawn_hour(rng),
        drawn_field(rng, 1, 31, star=0.7),
        drawn_field(rng, 1, 12, star=0.8),
        drawn_field(rng, 0, 7, star=0.7),
    ]
    if not plain:
        decorate(rng, fields)
    if seconds:
        fields.insert(0, drawn_field(rng, 0, 59, star=0.2))
    text = " ".join(fields)
    return text.lower() if rng.random() < 0.1 else text


def decorate(rng: random.Random, fields: list[str]) -> None:
    """Put in names and the days that Vixie's cron does not have."""
    match rng.randrange(12):
        case 0:
            fields[2] = rng.choice(["L", "15,L", "1-3,L", "?"])
        case 1:
            fields[2], fields[4] = f"{rng.randint(1, 31)}W", "*"
        case 2:
            days = rng.sample(WEEKDAYS, rng.randint(1, 2))
            fields[2], fields[4] = "*", ",".join(f"{day}#{rng.randint(1, 5)}" for day in days)
        case 3:
            fields[2], fields[4] = "*", f"L{rng.randint(0, 7)}"
        case 4:
            fields[4] = rng.choice(["MON-FRI", "SAT,SUN", "FRI-SUN", "5-7", "1-7/2", "WED", "?", "*/2"])
        case 5:
            fields[3] = rng.choice(["JAN-JUN", "MAR,OCT,NOV", "SEP-DEC/2", "APR"])
        case 6:
            fields[2], fields[4] = rng.choice(["*/2", "*/5", "*"]), rng.choice(["1", "*/2", "MON-FRI"])


def drawn_hour(rng: random.Random) -> str:
    match rng.randrange(6):
        case 0 | 1 | 2:  # clocks are changed at night
            return ",".join(str(hour) for hour in sorted(rng.sample(range(5), rng.randint(1, 3))))
        case 3:
            return f"*/{rng.choice([1, 2, 3, 24])}"
        case _:
            return drawn_field(rng, 0, 23, star=0.5)


def drawn_field(rng: random.Random, low: int, high: int, *, star: float) -> str:
    if rng.random() < star:
        return "*"
    match rng.randrange(5):
        case 0:
            return f"*/{rng.randint(2, high)}"
        case 1 | 2:
            first, last = sorted(rng.sample(range(low, high + 1), 2))
            step = rng.choice(["", f"/{rng.randint(1, last - first)}"])
            return f"{first}-{last}{step}" + rng.choice(["", f",{rng.randint(low, high)}"])
        case _:
            return ",".join(map(str, rng.sample(range(low, high + 1), rng.randint(1, 3))))


def windows(
    rng: random.Random, zones: Sequence[str], changing: Sequence[str]
) -> Iterator[tuple[str, datetime]]:
    """Yield zones with the start of a stretch: in most a change of the clock is near."""
    while True:
        if rng.random() < 0.8:
            zone = rng.choice(changing)
            yield zone, rng.choice(changes(zone)) - timedelta(minutes=rng.randrange(8 * 60))
        else:
            minutes = rng.randrange((LAST_YEAR - FIRST_YEAR + 1) * 365 * 1440)
            yield rng.choice(zones), datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)

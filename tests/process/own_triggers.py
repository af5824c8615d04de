"""Triggers of a user's own, and a task for them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from jobsched import task

MOST = datetime.fromisoformat("2030-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class Beat:
    """Fires in steps of so many milliseconds, from the full second on."""

    step_ms: int

    def next_after(self, now: datetime) -> datetime | None:
        start = now.replace(microsecond=0)
        return start + ((now - start) // timedelta(milliseconds=self.step_ms) + 1) * timedelta(
            milliseconds=self.step_ms
        )


class Thrice(msgspec.Struct, frozen=True):
    """Fires at three times of a day long ago, and never again."""

    day: datetime

    def next_after(self, now: datetime) -> datetime | None:
        times = [self.day + timedelta(hours=hour) for hour in (1, 2, 3)]
        return next((time for time in times if time > now), None)


class Stuck(msgspec.Struct, frozen=True):
    def next_after(self, now: datetime) -> datetime | None:
        return now


class Naive(msgspec.Struct, frozen=True):
    def next_after(self, now: datetime) -> datetime | None:
        return now.replace(tzinfo=None)


@task(category="mail")
def beat() -> None:
    pass

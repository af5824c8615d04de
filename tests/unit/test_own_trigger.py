"""Triggers of the user's own: what is kept of them, and what is refused."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jobsched.clock import to_micros
from jobsched.errors import InvalidOption
from jobsched.firing import REFILL, fire
from jobsched.own_trigger import AHEAD, TimesUnknown, known_times, with_more
from jobsched.schedule import Schedule, ScheduleState, StoredSchedule
from jobsched.trigger_data import from_data, to_data

NOW = datetime(2026, 11, 21, tzinfo=UTC)
AT = to_micros(NOW)


class Hourly(msgspec.Struct, frozen=True):
    minute: int
    until: datetime | None = None

    def next_after(self, now):
        found = now.replace(minute=self.minute, second=0, microsecond=0)
        found = found if found > now else found + timedelta(hours=1)
        return None if self.until and found > self.until else found


@dataclass(frozen=True)
class Made:
    answer: str

    def next_after(self, now):
        return {"same": now, "naive": (now + timedelta(1)).replace(tzinfo=None), "text": "soon"}[self.answer]


class Plain:
    def next_after(self, now):
        return now


@dataclass(frozen=True)
class WithObject:
    thing: object

    def next_after(self, now):
        return now


def test_the_next_times_are_known_and_come_back_from_the_data():
    known = known_times(Hourly(5), AT)
    assert len(known.times) == AHEAD
    assert from_data(msgspec.msgpack.decode(msgspec.msgpack.encode(to_data(known)))) == known
    at = NOW
    for _ in range(AHEAD):
        at = known.next_after(at)
    assert at == NOW.replace(minute=5) + timedelta(hours=AHEAD - 1)
    with pytest.raises(TimesUnknown, match="test_own_trigger:Hourly"):
        known.next_after(at)


def test_more_are_worked_out_by_its_own_code():
    first = known_times(Hourly(5, NOW + timedelta(hours=150)), AT)
    more = with_more(first, first.times[-1] - 1)
    assert more.times[0] == first.times[-1]
    assert (more.is_all, len(more.times)) == (True, 51)
    assert more.next_after(NOW + timedelta(hours=151)) is None


@pytest.mark.parametrize("answer", ["same", "naive", "text"])
def test_a_trigger_that_answers_wrongly_is_refused(answer):
    with pytest.raises(InvalidOption, match=r"must be a later aware datetime or None, got"):
        known_times(Made(answer), AT)


def test_what_no_worker_could_make_again_is_refused():
    class Local(Hourly, frozen=True):
        pass

    for trigger in (Plain(), Local(5)):
        with pytest.raises(
            InvalidOption, match=r"a dataclass or msgspec\.Struct of a module that workers import"
        ):
            known_times(trigger, AT)
    with pytest.raises(InvalidOption, match="must be plain values"):
        known_times(WithObject(object()), AT)
    known = known_times(Hourly(5), AT)
    with pytest.raises(InvalidOption, match="cannot be made again"):
        with_more(msgspec.structs.replace(known, kind="no.such:Thing"), AT)


def stored(trigger, next_at):
    schedule = Schedule(name="own", task="t:t", category="mail", trigger=to_data(trigger))
    return StoredSchedule(schedule, ScheduleState(next_at=next_at, fire_at=next_at))


def ids():
    yield from (bytes([number]) * 16 for number in range(1, 200))


def test_a_job_works_out_more_while_half_of_the_times_are_left():
    known = known_times(Hourly(5), AT)
    made = ids()
    for place, due in enumerate(known.times[:-1]):
        firing = fire(stored(known, due), due, lambda: next(made))
        asked = [job.task for job in firing.jobs if job.task == REFILL]
        assert bool(asked) == (place >= AHEAD // 2), place
        assert len(firing.records) == 1
        assert firing.next_at == known.times[place + 1]


def test_the_last_time_known_fires_and_the_schedule_waits_for_others():
    known = known_times(Hourly(5), AT)
    last = known.times[-1]
    made = ids()
    firing = fire(stored(known, last), last, lambda: next(made))
    assert [record.due_at for record in firing.records] == [last]
    assert (firing.next_at, firing.fire_at) == (last, last + 60_000_000)
    waiting = stored(known, last)
    waiting.state.last_at = last
    waiting.state.fire_at = firing.fire_at
    again = fire(waiting, firing.fire_at, lambda: next(made))
    assert [job.task for job in again.jobs] == [REFILL]
    assert (again.next_at, again.fire_at) == (last, last + 120_000_000)


def test_what_was_due_meanwhile_is_covered_once_the_times_are_known():
    known = known_times(Hourly(5), AT)
    last = known.times[-1]
    waiting = stored(with_more(known, last), last)
    waiting.state.last_at = last
    hours = 3600 * 1_000_000
    made = ids()
    firing = fire(waiting, last + 3 * hours, lambda: next(made))
    assert [(record.due_at, record.until_at, record.count) for record in firing.records] == [
        (last + hours, last + 3 * hours, 3)
    ]


def test_times_that_are_all_too_late_are_skipped_and_others_asked_for():
    known = known_times(Hourly(5), AT)
    waiting = stored(known, known.times[-3])
    waiting = StoredSchedule(msgspec.structs.replace(waiting.schedule, misfire="skip"), waiting.state)
    now = known.times[-1] + 3600 * 1_000_000
    made = ids()
    firing = fire(waiting, now, lambda: next(made))
    assert [
        (record.due_at, record.until_at, record.count, str(record.kind)) for record in firing.records
    ] == [(known.times[-3], known.times[-1], 3, "skipped")]
    assert [job.task for job in firing.jobs] == [REFILL]
    assert (firing.next_at, firing.fire_at) == (known.times[-1], now + 60_000_000)

import os
import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jobsched.errors import InvalidOption
from jobsched.trigger import Cron, Every, Once, Trigger, anchored

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
MAY = datetime(2026, 5, 1, tzinfo=UTC)


def fires(expression: str, zone: str, start: str, count: int, *, seconds: bool = False) -> list[str]:
    """Return the first times after a local one, as the clock of the zone shows them."""
    trigger = Cron(expression, timezone=zone, seconds=seconds)
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    found = []
    for _ in range(count):
        at = trigger.next_after(at)
        assert at is not None
        assert at.tzinfo is UTC
        local = at.astimezone(ZoneInfo(zone))
        found.append(local.isoformat(timespec="seconds" if seconds else "minutes")[5:])
    return found


# By hand: where the clocks are changed.

BERLIN, NEW_YORK, HAVANA = "Europe/Berlin", "America/New_York", "America/Havana"
LORD_HOWE, APIA = "Australia/Lord_Howe", "Pacific/Apia"


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        # Left out: once, right after the jump, several together.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:30+02:00"]),
        ("15,45 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:15+02:00"]),
        ("* 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:00+02:00"]),
        ("0 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:00+02:00"]),
        ("30 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-29T03:30+02:00"]),
        ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29T03:00+02:00", "03-30T02:00+02:00"]),
        ("59 1 * * *", BERLIN, "2026-03-28T12:00", ["03-29T01:59+01:00", "03-30T01:59+02:00"]),
        ("30 2 * * SAT", BERLIN, "2026-03-28T12:00", ["04-04T02:30+02:00", "04-11T02:30+02:00"]),
        ("30 2 29 3 *", BERLIN, "2025-03-29T12:00", ["03-29T03:00+02:00", "03-29T02:30+02:00"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08T03:00-04:00", "03-09T02:30-04:00"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04T02:30+11:00", "10-05T02:15+11:00"]),
        ("30 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04T02:30+11:00", "10-05T02:30+11:00"]),
        ("0 0 * * *", HAVANA, "2026-03-07T12:00", ["03-08T01:00-04:00", "03-09T00:00-04:00"]),
        ("0,30 0,1 * * *", HAVANA, "2026-03-07T12:00", ["03-08T01:00-04:00", "03-08T01:30-04:00"]),
        # Twice: the first time only.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25T02:30+02:00", "10-26T02:30+01:00"]),
        ("0 3 * * *", BERLIN, "2026-10-24T12:00", ["10-25T03:00+01:00", "10-26T03:00+01:00"]),
        ("0 2,3 * * *", BERLIN, "2026-10-24T12:00", ["10-25T02:00+02:00", "10-25T03:00+01:00"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01T01:30-04:00", "11-02T01:30-05:00"]),
        ("0 0 * * *", HAVANA, "2026-10-31T12:00", ["11-01T00:00-04:00", "11-02T00:00-05:00"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05T01:45+11:00", "04-06T01:45+10:30"]),
        ("15 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05T01:15+11:00", "04-06T01:15+10:30"]),
        # A rhythm: real time.
        ("0 * * * *", BERLIN, "2026-03-29T01:00", ["03-29T03:00+02:00", "03-29T04:00+02:00"]),
        ("30 * * * *", BERLIN, "2026-03-29T01:00", ["03-29T01:30+01:00", "03-29T03:30+02:00"]),
        ("0 */2 * * *", BERLIN, "2026-03-29T00:00", ["03-29T04:00+02:00", "03-29T06:00+02:00"]),
        ("0 * * * *", BERLIN, "2026-10-25T01:00", ["10-25T02:00+02:00", "10-25T02:00+01:00"]),
        ("0 */2 * * *", BERLIN, "2026-10-25T01:00", ["10-25T02:00+02:00", "10-25T02:00+01:00"]),
        ("30 * * * *", NEW_YORK, "2026-11-01T01:00", ["11-01T01:30-04:00", "11-01T01:30-05:00"]),
        ("0 */24 * * *", HAVANA, "2026-03-07T12:00", ["03-09T00:00-04:00", "03-10T00:00-04:00"]),
        ("0 */24 * * *", HAVANA, "2026-10-31T12:00", ["11-01T00:00-04:00", "11-01T00:00-05:00"]),
        ("0 * * * *", LORD_HOWE, "2026-10-04T01:00", ["10-04T03:00+11:00", "10-04T04:00+11:00"]),
        ("*/20 * * * *", LORD_HOWE, "2026-04-05T01:30", ["04-05T01:40+11:00", "04-05T01:40+10:30"]),
    ],
)
def test_where_the_clocks_change(expression, zone, start, expected):
    assert fires(expression, zone, start, 2) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 1 * * *", ["12-29T01:30-10:00", "12-31T00:00+14:00", "12-31T01:30+14:00"]),
        ("0 0 * * *", ["12-31T00:00+14:00", "01-01T00:00+14:00", "01-02T00:00+14:00"]),
        ("0 12 30 * *", ["12-31T00:00+14:00", "01-30T12:00+14:00", "03-30T12:00+14:00"]),
        ("0 */12 * * *", ["12-29T12:00-10:00", "12-31T00:00+14:00", "12-31T12:00+14:00"]),
    ],
)
def test_a_day_that_a_zone_has_left_out_is_made_up_for(expression, expected):
    assert fires(expression, APIA, "2011-12-29T00:00", len(expected)) == expected


def test_what_comes_twice_is_told_apart_by_the_instant_that_one_starts_from():
    first, second = (datetime(2026, 10, 25, hour, 10, tzinfo=UTC) for hour in (0, 1))  # 02:10, 02:10
    fixed, rhythm = Cron("5,30 2 * * *", timezone=BERLIN), Cron("5,30 * * * *", timezone=BERLIN)
    assert fixed.next_after(first) == first + timedelta(minutes=20)
    assert fixed.next_after(second) == datetime(2026, 10, 26, 1, 5, tzinfo=UTC)
    assert rhythm.next_after(first + timedelta(minutes=30)) == second - timedelta(minutes=5)
    assert rhythm.next_after(second) == second + timedelta(minutes=20)


def test_seconds_follow_the_same_rule():
    assert fires("15 30 2 * * *", BERLIN, "2026-03-28T12:00", 2, seconds=True) == [
        "03-29T03:00:00+02:00", "03-30T02:30:15+02:00",
    ]  # fmt: skip
    assert fires("59 59 * * * *", BERLIN, "2026-10-25T01:59", 3, seconds=True) == [
        "10-25T01:59:59+02:00", "10-25T02:59:59+02:00", "10-25T02:59:59+01:00",
    ]  # fmt: skip


# By hand: what expressions mean.


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 12 1 * MON", ["05-01", "05-04", "05-11"]),  # either
        ("0 12 */2 * MON", ["05-11", "05-25", "06-01"]),  # both: one begins with *
        ("0 12 1-31/2 * MON", ["05-01", "05-03", "05-04"]),
        ("0 12 1-31 * MON", ["05-01", "05-02", "05-03"]),
        ("0 12 30 2 MON", ["02-01", "02-08", "02-15"]),  # the Mondays of February
        ("0 12 ? * 7", ["05-03", "05-10", "05-17"]),
        ("0 12 * * 0", ["05-03", "05-10", "05-17"]),
        ("0 12 * * FRI-SUN", ["05-01", "05-02", "05-03"]),
        ("0 12 * * sat-7", ["05-02", "05-03", "05-09"]),
        ("0 12 L * *", ["05-31", "06-30", "07-31"]),
        ("0 12 L 2 *", ["02-28", "02-29", "02-28"]),
        ("0 12 15,L * *", ["05-15", "05-31", "06-15"]),
        ("0 12 16W * *", ["05-15", "06-16", "07-16"]),
        ("0 12 31W * *", ["05-29", "06-30", "07-31"]),
        ("0 12 * * MON#2", ["05-11", "06-08", "07-13"]),
        ("0 12 * * MON#5", ["06-29", "08-31", "11-30"]),
        ("0 12 * * L5", ["05-29", "06-26", "07-31"]),
        ("0 12 1 JAN,jun *", ["06-01", "01-01", "06-01"]),
        ("@monthly", ["06-01", "07-01", "08-01"]),
        ("@Weekly", ["05-03", "05-10", "05-17"]),
        ("0 12 29 2 *", ["02-29", "02-29", "02-29"]),
    ],
)
def test_what_an_expression_means(expression, expected):
    start = "2027-01-01T00:00" if "02-28" in expected or "02-08" in expected else "2026-05-01T00:00"
    assert [one[:5] for one in fires(expression, "UTC", start, 3)] == expected


def test_seconds_come_first_where_they_are_asked_for():
    trigger = Cron("*/10 0 12 * * *", seconds=True)
    at = trigger.next_after(MAY)
    assert at == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert trigger.next_after(at) == at + timedelta(seconds=10)
    assert Cron("@hourly", seconds=True).next_after(MAY) == MAY + timedelta(hours=1)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1-1 * * * *", "'1-1' is no range: write '1'"),
        ("* * * JAN-JAN *", "'JAN-JAN' is no range"),
        ("5-1 * * * *", "goes backwards"),
        ("0 0 * * SAT-MON", "goes backwards"),
        ("59/15 * * * *", "a step needs a range, '59/15' has none: write 59$"),
        ("5/15 * * * *", "write 5-59/15$"),
        ("?/15 * * * *", r"write \*/15$"),
        ("*/0 * * * *", "a step is 1 or more"),
        ("R * * * *", "drawn by chance"),
        ("H(0-5)/2 1 * * *", "drawn by chance"),
        ("*,5 * * * *", "minute must be from 0 to 59, got '*'"),
        ("*/2,5 * * * *", "must stand alone"),
        ("0 0 1W,15 * *", "must stand alone"),
        ("0 0 15W * MON", "may mean both or either"),
        ("0 0 15 * MON#2", "may mean both or either"),
        ("0 0 * * MON#2,FRI", "mixes days of every week"),
        ("0 0 * * MON#6", "1st to the 5th"),
        ("0 0 * * MON#0", "1st to the 5th"),
        ("0 0 LW * *", "day of month must be from 1 to 31, got 'LW'"),
        ("0 0 L-3 * *", "day of month must be"),
        ("0 0 * * 5L", "day of week must be"),
        ("0 0 * * L8", "day of week must be from 0 to 7, got 8"),
        ("? * * * *", "minute must be"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
        ("x", "expected 5 fields, got 1"),
        ("", "expected 5 fields, got 0"),
        ("* * * * * *", "six mean seconds first: pass seconds=True"),
        ("* * * * * * *", "expected 5 fields, got 7"),
        ("@reboot", "expected one of @yearly"),
        ("61 * * * *", "out of range"),
        ("0 24 * * *", "out of range"),
        ("0 0 0 * *", "out of range"),
        ("0 0 * 13 *", "out of range"),
        ("0 0 * * 8", "out of range"),
        ("0 0 * FOO *", "or a name like FEB"),
        ("1,,2 * * * *", "got ''"),
        ("-1 * * * *", "got '-1'"),
        ("٣ * * * *", "minute must be"),
        ("* " * 200, "up to 256 characters"),
        (None, "must be a text, got None"),
        (["*"], "must be a text"),
    ],
)
def test_what_is_no_expression_or_means_two_things_is_refused(expression, reason):
    with pytest.raises(InvalidOption, match=reason):
        Cron(expression)


@pytest.mark.parametrize(
    "zone",
    ["Mars/Olympus", "", "Europe", "../../etc/passwd", "right/Europe/Berlin", "localtime", None, 5, []],
)
def test_a_zone_that_is_none_is_refused(zone):
    with pytest.raises(InvalidOption, match="timezone must be a"):
        Cron("@daily", timezone=zone)


def test_a_machine_without_zones_has_those_of_the_package():
    code = "from jobsched import Cron; print(Cron('@daily', timezone='Europe/Berlin'))"
    environment = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.stdout == "Cron('@daily', timezone='Europe/Berlin')\n", done.stderr


# Properties.

ZONES = sorted(available_timezones() - {"localtime"})  # which is no zone, but of the machine
EXPRESSIONS = [
    "* * * * *",
    "*/7 * * * *",
    "0 */3 * * *",
    "30 2 * * *",
    "0,20,40 0-4 * * *",
    "15 0 1 * MON",
    "0 12 L * *",
    "59 23 31 12 *",
    "0 0 29 2 *",
    "7 1 * * L0",
]
some_time = st.datetimes(timezones=st.just(UTC))
recent_time = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
quietly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@quietly
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), some_time)
def test_the_next_time_is_later_whenever_one_asks(expression, zone, now):
    at = Cron(expression, timezone=zone).next_after(now)
    assert at is None or at > now
    assert at is not None or now.year > 9900


@quietly
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), recent_time, st.floats(0, 1, exclude_max=True))
def test_it_is_the_same_from_anywhere_before_it(expression, zone, now, part):
    trigger = Cron(expression, timezone=zone)
    at = trigger.next_after(now)
    assert at is not None
    between = now + part * (at - now)
    assume(between < at)
    assert trigger.next_after(between) == at
    assert trigger.next_after(at - timedelta(microseconds=1)) == at
    after = trigger.next_after(at)
    assert after is not None
    assert after > at


@quietly
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), recent_time, recent_time)
def test_who_asks_later_hears_of_no_earlier_time(expression, zone, one, other):
    trigger = Cron(expression, timezone=zone)
    earlier, later = (trigger.next_after(now) for now in sorted((one, other)))
    assert earlier is not None
    assert later is not None
    assert earlier <= later


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("expression", ["* * * * *", "30 2 * * *", "0 0 29 2 *"])
def test_the_ends_of_the_calendar_are_no_error(expression, zone):
    trigger = Cron(expression, timezone=zone)
    far = [timezone(timedelta(hours=hours)) for hours in (-23, 0, 23)]
    for tz in far:
        late = trigger.next_after(datetime.max.replace(tzinfo=tz))
        assert late is None or late.year == 9999
        early = trigger.next_after(datetime.min.replace(tzinfo=tz))
        assert early is not None
        assert early.year <= 8
    assert Every(90, anchor=MAY).next_after(datetime.min.replace(tzinfo=far[2])) == MAY
    assert Every(90, anchor=MAY).next_after(datetime.max.replace(tzinfo=far[0])) is None
    assert Once(datetime.max.replace(tzinfo=far[0])).next_after(MAY) is not None


def test_a_day_that_comes_once_in_forty_years_is_found():
    fifth_monday_of_february = Cron("0 0 * 2 MON#5")
    assert fifth_monday_of_february.next_after(datetime(2072, 3, 1, tzinfo=UTC)) == datetime(
        2112, 2, 29, tzinfo=UTC
    )


@pytest.mark.parametrize("year", [2026, 2400, 8000])
@pytest.mark.parametrize("expression", ["0 3 * * *", "0 */3 * * *"])
def test_a_microsecond_before_a_time_it_is_still_to_come(year, expression):
    at = datetime(year, 1, 1, 3, tzinfo=UTC)
    assert Cron(expression).next_after(at - timedelta(microseconds=1)) == at


def test_threads_may_share_a_trigger():
    starts = [MAY + k * timedelta(hours=7) for k in range(200)]
    triggers = [Cron("*/5 1-20 * * *", timezone=BERLIN) for _ in range(4)]
    expected = [triggers[0].next_after(start) for start in starts]
    found: list[list[datetime | None]] = []

    def ask(trigger: Cron) -> None:
        found.append([trigger.next_after(start) for start in starts])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(trigger,)) for trigger in triggers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 4


# The others.


def test_once_fires_once():
    assert Once(MAY).next_after(MAY - SECOND) == MAY
    assert Once(MAY).next_after(MAY) is None


def test_once_goes_by_the_instant_where_a_clock_is_set_back():
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo(BERLIN))
    assert Once(first.replace(fold=1)).next_after(first) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_every_counts_from_its_anchor():
    trigger = Every(90, anchor=MAY)
    assert trigger.next_after(MAY - DAY) == MAY
    assert trigger.next_after(MAY) == MAY + timedelta(seconds=90)
    assert trigger.next_after(MAY + timedelta(seconds=90 * 1000 + 1)) == MAY + timedelta(seconds=90 * 1001)


def test_every_does_not_drift_in_a_million_steps():
    step = timedelta(seconds=1, microseconds=333_333)
    trigger = Every(step, anchor=MAY.astimezone(ZoneInfo(BERLIN)))
    at = MAY
    for _ in range(1_000_000):
        at = trigger.next_after(at)
    assert at == MAY + 1_000_000 * step


def test_every_goes_by_real_time_where_the_clocks_change():
    berlin = ZoneInfo(BERLIN)
    anchor = datetime(2026, 3, 29, 1, 30, tzinfo=berlin)
    assert Every(3600, anchor=anchor).next_after(anchor) == datetime(2026, 3, 29, 3, 30, tzinfo=berlin)
    assert Every("1d", anchor=anchor).next_after(anchor) == datetime(2026, 3, 30, 2, 30, tzinfo=berlin)


@pytest.mark.parametrize("interval", [0, 0.5, timedelta(milliseconds=999), "500ms"])
def test_an_interval_under_a_second_is_refused(interval):
    with pytest.raises(InvalidOption, match="interval must be a second or more"):
        Every(interval)


@pytest.mark.parametrize("interval", [-1, "5", "soon", None, True, float("nan"), float("inf"), 1e300])
def test_an_interval_that_is_no_duration_is_refused(interval):
    with pytest.raises(InvalidOption, match="interval"):
        Every(interval)


@pytest.mark.parametrize("interval", [300, "5m", timedelta(minutes=5), 300.0])
def test_an_interval_is_written_in_several_ways(interval):
    assert Every(interval) == Every(300)
    assert repr(Every(interval)) == "Every(300)"


def test_an_anchor_is_given_once():
    trigger = Every("5m")
    with pytest.raises(InvalidOption, match=r"Every\(300\) has no anchor"):
        trigger.next_after(MAY)
    fixed = anchored(trigger, MAY)
    assert fixed == Every("5m", anchor=MAY)
    assert fixed.next_after(MAY) == MAY + timedelta(minutes=5)
    assert anchored(fixed, MAY + DAY) is fixed
    assert anchored(Once(MAY), MAY + DAY) == Once(MAY)


@pytest.mark.parametrize(
    "ask",
    [
        Once,
        lambda naive: Every(5, anchor=naive),
        lambda naive: Once(MAY).next_after(naive),
        lambda naive: Every(5, anchor=MAY).next_after(naive),
        lambda naive: Cron("@daily").next_after(naive),
        lambda naive: anchored(Every(5), naive),
    ],
)
@pytest.mark.parametrize("naive", [datetime(2026, 5, 1), "2026-05-01", 0])  # noqa: DTZ001
def test_a_time_that_is_not_aware_is_refused(ask, naive):
    with pytest.raises(InvalidOption, match="must be an aware datetime"):
        ask(naive)


TRIGGERS = [
    (Once(MAY), "Once('2026-05-01T00:00:00+00:00')"),
    (Every(90, anchor=MAY), "Every(90, anchor='2026-05-01T00:00:00+00:00')"),
    (Every(1_000_000), "Every(1000000)"),
    (Every(1.5), "Every(1.5)"),
    (Cron("30 2 * * *"), "Cron('30 2 * * *')"),
    (Cron("30 2 * * *", timezone=BERLIN), "Cron('30 2 * * *', timezone='Europe/Berlin')"),
    (Cron("0 30 2 * * *", seconds=True), "Cron('0 30 2 * * *', seconds=True)"),
]


@pytest.mark.parametrize(("trigger", "shown"), TRIGGERS)
def test_triggers_are_values(trigger, shown):
    copy = pickle.loads(pickle.dumps(trigger))
    assert (copy, hash(copy)) == (trigger, hash(trigger))
    assert repr(trigger) == shown
    assert isinstance(trigger, Trigger)
    assert all(trigger != other for other, _ in TRIGGERS if other is not trigger)
    with pytest.raises((AttributeError, TypeError)):
        trigger.at = MAY


def test_a_trigger_of_the_users_needs_one_method():
    class Sometimes:
        def next_after(self, now: datetime) -> datetime | None:
            return now + DAY

    assert isinstance(Sometimes(), Trigger)
    assert anchored(Sometimes(), MAY).next_after(MAY) == MAY + DAY

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.cron_fields import parse_fields
from jobsched.cron_text import CronText
from jobsched.errors import InvalidOption

DAYS = ["*", "?", "*/3", "1", "28", "29", "30", "31", "30,31", "28-31", "15W", "31W", "L", "1,L"]
MONTHS = ["*", "2", "FEB", "2,4", "*/2", "4-6/2"]
WEEKDAYS = ["*", "?", "*/2", "MON", "1-5", "0,7", "MON#1", "MON#5", "L5"]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(DAYS), st.sampled_from(MONTHS), st.sampled_from(WEEKDAYS))
def test_what_is_seen_to_come_each_month_does_so_by_the_calendar(day, month, weekday):
    try:
        text = CronText(f"30 2 {day} {month} {weekday}")
    except InvalidOption:
        return
    if text.fields.comes_each_month:
        found = text.next_after(datetime(2001, 1, 1))  # noqa: DTZ001 (the face of a clock)
        assert found is not None
        assert found.year == 2001


@pytest.mark.parametrize(
    ("days", "is_seen"),
    [
        ("* * *", True),
        ("28 2 *", True),
        ("28,31 2 ?", True),
        ("* 2 MON", True),
        ("29 2 *", False),
        ("L 2 *", False),
        ("* * MON#5", False),
        ("1 * MON", False),
    ],
)
def test_only_plain_days_are_seen_to_come(days, is_seen):
    assert parse_fields(f"0 0 {days}", seconds=False).comes_each_month is is_seen


@pytest.mark.parametrize(("days", "comes"), [("30 2 *", False), ("31 4,6 *", False), ("29 2 *", True)])
def test_a_day_that_no_month_has_never_comes(days, comes):
    assert CronText(f"0 0 {days}").comes() is comes

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jobsched.errors import InvalidOption
from jobsched.trigger import Cron, Every, Once
from jobsched.trigger_data import from_data, to_data

MAY = datetime(2026, 5, 1, tzinfo=UTC)
MAY_US = 1_777_593_600_000_000


@pytest.mark.parametrize(
    ("trigger", "data"),
    [
        (Cron("30 2 * * *", timezone="Europe/Berlin"), ["cron", "30 2 * * *", "Europe/Berlin", False]),
        (Cron("0 30 2 * * *", seconds=True), ["cron", "0 30 2 * * *", "UTC", True]),
        (Every(1.5, anchor=MAY), ["every", 1_500_000, MAY_US]),
        (Every("5m"), ["every", 300_000_000, None]),
        (Once(MAY + timedelta(microseconds=1)), ["once", MAY_US + 1]),
        (Once(datetime(1969, 12, 31, tzinfo=UTC)), ["once", -86_400_000_000]),
    ],
)
def test_a_trigger_comes_back_from_its_data(trigger, data):
    assert to_data(trigger) == data
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(data))
    assert from_data(packed) == trigger
    assert from_data(tuple(packed)) == trigger


@pytest.mark.parametrize(
    "data",
    [
        None,
        5,
        "cron",
        [],
        ["cron"],
        ["hourly", 5],
        [["cron"], 5],
        ["cron", "@daily", "UTC", 0],
        ["cron", "@daily", "UTC"],
        ["cron", "@daily", "UTC", False, 1],
        ["every", 1.5, None],
        ["every", True, None],
        ["every", 10**30, None],
        ["every", 5_000_000, "now"],
        ["once", None],
        ["once", 10**30],
    ],
)
def test_what_is_no_trigger_is_refused(data):
    with pytest.raises(InvalidOption, match="a trigger must be"):
        from_data(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (["cron", "@daily", "Mars/Olympus", False], "'Mars/Olympus'"),
        (["cron", "61 * * * *", "UTC", False], "out of range"),
        (["cron", 5, "UTC", False], "must be a text"),
        (["cron", "@daily", None, False], "timezone must be a text"),
        (["every", 5, None], "a second or more"),
    ],
)
def test_what_is_refused_says_why(data, reason):
    with pytest.raises(InvalidOption, match=reason):
        from_data(data)


def test_whether_it_ever_fires_is_not_looked_for_again():
    never = from_data(["cron", "0 0 30 2 *", "UTC", False])
    assert never.next_after(MAY) is None


def test_a_trigger_of_the_users_cannot_be_kept():
    class Sometimes:
        def next_after(self, now: datetime) -> datetime | None:
            return now

    with pytest.raises(InvalidOption, match=r"can keep a Cron, an Every or a Once, got .*Sometimes"):
        to_data(Sometimes())

from datetime import UTC, datetime, timedelta

import pytest

from jobsched.errors import InvalidOption
from jobsched.trigger import Cron, Every, Once
from jobsched.trigger_explain import explain

BERLIN, APIA = "Europe/Berlin", "Pacific/Apia"
AFTER = "fires right after the jump"
MAY = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "start", "rows"),
    [
        (
            "30 2 * * *",
            BERLIN,
            "2026-03-27T23:00",
            [
                ("2026-03-28 02:30:00+01:00", ""),
                (
                    "2026-03-29 03:00:00+02:00",
                    "the clock leaves out 02:30, fires right after the jump",
                ),
                ("2026-03-30 02:30:00+02:00", ""),
            ],
        ),
        (
            "15,45 2 * * *",
            BERLIN,
            "2026-03-28T12:00",
            [
                (
                    "2026-03-29 03:00:00+02:00",
                    "the clock leaves out 02:15, 02:45, fires right after the jump, once for all",
                ),
                ("2026-03-30 02:15:00+02:00", ""),
            ],
        ),
        (
            "* 2,3 * * *",
            BERLIN,
            "2026-03-28T12:00",
            [
                (
                    "2026-03-29 03:00:00+02:00",
                    f"the clock leaves out 02:00, 02:01, 02:02 and 57 more, {AFTER}, together with 03:00",
                ),
                ("2026-03-29 03:01:00+02:00", ""),
            ],
        ),
        (
            "30 2 * * *",
            BERLIN,
            "2026-10-24T12:00",
            [
                ("2026-10-25 02:30:00+02:00", "02:30 comes twice, fires the first time only"),
                ("2026-10-26 02:30:00+01:00", ""),
            ],
        ),
        (
            "30 * * * *",
            BERLIN,
            "2026-10-24T23:00",
            [
                ("2026-10-25 01:30:00+02:00", ""),
                ("2026-10-25 02:30:00+02:00", "02:30 comes twice, both fire: the first"),
                ("2026-10-25 02:30:00+01:00", "02:30 comes twice, both fire: the second"),
                ("2026-10-25 03:30:00+01:00", ""),
            ],
        ),
        (
            "*/30 * * * *",
            BERLIN,
            "2026-03-29T00:00",
            [
                ("2026-03-29 01:30:00+01:00", ""),
                ("2026-03-29 03:00:00+02:00", "skipped: the clock leaves out 02:00, 02:30"),
                ("2026-03-29 03:30:00+02:00", ""),
            ],
        ),
        (
            "30 1 * * *",
            APIA,
            "2011-12-30T00:00",
            [
                (
                    "2011-12-31 00:00:00+14:00",
                    "the clock leaves out 2011-12-30 01:30, fires right after the jump",
                ),
                ("2011-12-31 01:30:00+14:00", ""),
            ],
        ),
    ],
)
def test_what_a_change_of_the_clock_does_is_noted(expression, zone, start, rows):
    start = datetime.fromisoformat(start).replace(tzinfo=UTC)
    if zone == APIA:
        start -= timedelta(hours=10)
    found = explain(Cron(expression, timezone=zone), start, len(rows))
    assert [(row.local, row.note) for row in found] == rows


def test_a_time_that_is_not_fired_again_has_not_been_left_out():
    second_time = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10, and 02:30 is shown once more
    (row,) = explain(Cron("30 2 * * *", timezone=BERLIN), second_time, 1)
    assert (row.local, row.note) == ("2026-10-26 02:30:00+01:00", "")


def test_very_many_times_are_not_counted():
    rows = explain(
        Cron("* * 2 * * *", timezone=BERLIN, seconds=True), datetime(2026, 3, 28, 12, tzinfo=UTC), 1
    )
    assert rows[0].note.startswith("the clock leaves out 02:00, 02:00:01, 02:00:02 and many more,")


def test_rows_say_how_long_after_the_one_before_they_come():
    rows = explain(Every("90m", anchor=MAY), MAY, 3)
    assert [row.after_s for row in rows] == [None, 5400, 5400]
    assert [row.at for row in rows] == [MAY + k * timedelta(minutes=90) for k in (1, 2, 3)]
    assert rows[0].local == "2026-05-01 01:30:00+00:00"


def test_there_are_no_more_rows_than_due_times():
    assert [row.at for row in explain(Once(MAY), MAY - timedelta(1), 5)] == [MAY]
    assert explain(Once(MAY), MAY, 5) == []


def test_a_trigger_of_the_users_is_explained_too():
    class Daily:
        def next_after(self, now: datetime) -> datetime | None:
            return now + timedelta(days=1)

    assert len(explain(Daily(), MAY, 3)) == 3


def test_a_naive_start_is_refused():
    with pytest.raises(InvalidOption, match="start must be an aware datetime"):
        explain(Once(MAY), datetime(2026, 5, 1), 1)  # noqa: DTZ001

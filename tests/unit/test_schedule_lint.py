from datetime import UTC, datetime, timedelta

import pytest

from jobsched.errors import InvalidOption
from jobsched.schedule_lint import Finding, lint
from jobsched.trigger import Cron, Every, Once
from jobsched.trigger_data import from_data

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def found(trigger) -> list[tuple[str, str]]:
    return [(code, text) for _, code, text in lint([("nightly", trigger, {})], now=NOW)]


@pytest.mark.parametrize(
    "trigger",
    [
        Cron("30 2 * * *"),
        Cron("*/15 * * * *"),
        Cron("0 */6 * * *"),
        Cron("0 12 * * MON"),
        Cron("0 0 1 */3 *"),
        Cron("0 0 31 1 *"),
        Cron("30 4 * * *", timezone=BERLIN),
        Cron("0 * * * *", timezone=BERLIN),
        Every("5m"),
        Once(NOW + timedelta(days=1)),
    ],
)
def test_there_is_nothing_odd_about_plain_schedules(trigger):
    assert found(trigger) == []


@pytest.mark.parametrize(
    ("expression", "code", "says"),
    [
        (
            "0 12 1 * MON",
            "either-day",
            "fires where either of the day of month (1) and the day of week (MON)",
        ),
        ("0 12 */2 * MON", "star-day", "fires where both the day of month (*/2) and the day of week (MON)"),
        ("0 12 */2 * */2", "star-day", "Kubernetes takes either"),
        (
            "0 0 * * 5",
            "weekday-number",
            "is FRI; Quartz counts from 1 for Sunday and has THU as 5: write FRI",
        ),
        ("0 0 * * 0", "weekday-number", "is SUN; Quartz counts from 1 for Sunday and refuses it: write SUN"),
        ("0 0 * * 1-5", "weekday-number", "write MON-FRI"),
        ("0 0 * * 6,7", "weekday-number", "Kubernetes refuses 7: write SAT,SUN"),
        ("0 0 * * 1#2", "weekday-number", "write MON#2"),
        ("*/7 * * * *", "uneven-step", "0 comes 4 after 56, not 7: write Every('7m')"),
        ("0 */5 * * *", "uneven-step", "0 comes 4 after 20, not 5: write Every('5h')"),
        ("0 0 */2 * *", "uneven-step", "starts again with each month"),
        ("0 0 1 */5 *", "uneven-step", "1 comes 2 after 11, not 5: write the months one by one"),
        ("0 0 * * */2", "uneven-step", "0 comes 1 after 6, not 2: write Every('2d')"),
        ("*/90 * * * *", "uneven-step", "minute */90 never comes to a second value: write 0"),
        ("0 */24 * * *", "uneven-step", "hour */24 never comes to a second value: write 0"),
        ("0 0 L * *", "extension", "for them write 28-31"),
        ("0 0 15W * *", "extension", "15W is the weekday nearest"),
        ("0 0 * * MON#2", "extension", "for them write its seven days"),
        ("0 0 * * L5", "extension", "in Quartz it is 6L"),
        ("0 0 ? * MON", "extension", "? is Quartz's, Vixie's cron refuses it: write *"),
        ("@daily", "name", "Quartz does not know @daily: write '0 0 * * *'"),
        ("0 0 * * MON-FRI", "name", "other crons may refuse MON-FRI"),
        ("0 0 1 JAN,JUL *", "name", "other crons may refuse JAN,JUL"),
        ("0 0-23 * * *", "all-hours", "hour 0-23 is every hour"),
        ("0 0 31 * *", "missing-days", "not every month has a day 31: write L"),
        ("0 0 29,30 2,3 *", "missing-days", None),
        ("0 0 30 * *", "missing-days", "a day 30"),
        ("0 0 * * FRI#5", "missing-days", "not every month has FRI#5: write L5"),
        ("0 0 29 2 *", "rare", "fires on 2028-02-29, then not before 2032-02-29"),
    ],
)
def test_what_is_odd_about_an_expression_is_said(expression, code, says):
    texts = [text for one, text in found(Cron(expression)) if one == code]
    if says is None:
        assert texts == []
    else:
        assert [says in text for text in texts] == [True], texts


@pytest.mark.parametrize(
    ("expression", "left_out", "twice"),
    [
        (
            "30 2 * * *",
            "leaves out 02:30: fires right after the jump, at 03:00; as in Debian's cron; Quartz and",
            "shows 02:30 twice: fires the first time only; as in Debian's cron; Kubernetes fires twice",
        ),
        (
            "15,45 2 * * *",
            "leaves out 02:15 and 1 more: fires once for all right after the jump, at 03:00; Debian's cron",
            "shows 02:15 and 1 more twice: fires the first time only",
        ),
        (
            "*/15 2 * * *",
            "Debian's cron, to which * as minute is a rhythm too, skips it",
            "Debian's cron, to which * as minute is a rhythm too, fires twice",
        ),
        (
            "0 */2 * * *",
            "leaves out 02:00: skipped, since the hour begins with *: write 0,2,4,6,8,10,12,14,16,18,20,22",
            "shows 02:00 twice: fires both times",
        ),
    ],
)
def test_what_the_clock_changes_of_the_coming_year_do_is_said(expression, left_out, twice):
    texts = [text for code, text in found(Cron(expression, timezone=BERLIN)) if code == "clock-change"]
    assert len(texts) == 2
    assert texts[0].startswith("on 2027-03-28 the clock of Europe/Berlin ")
    assert left_out in texts[0]
    assert texts[1].startswith("on 2027-10-31 the clock of Europe/Berlin ")
    assert twice in texts[1]


def test_a_time_that_the_clock_leaves_out_on_another_day_is_not_odd():
    assert found(Cron("30 2 * * SAT", timezone=BERLIN)) == []


def test_what_never_fires_again_is_said():
    assert found(Once(NOW)) == [("never", "never fires again: remove it, or give it a time to come")]
    never = from_data(["cron", "0 0 30 2 *", "UTC", False])
    assert ("never", "never fires again: remove it, or give it a time to come") in found(never)


def test_what_fires_several_times_a_minute_is_said():
    assert [code for code, _ in found(Every(5))] == ["sub-minute"]
    codes = [code for code, _ in found(Cron("*/10 * * * * *", seconds=True))]
    assert codes == ["sub-minute", "seconds"]


# What many have in common.


_ADVICE = ": give them jitter, or other minutes"


def crowd(count: int, options: dict[str, object] | None = None) -> list[tuple[str, Cron, dict[str, object]]]:
    return [(f"job-{k}", Cron("30 2 * * *"), options or {}) for k in range(count)]


def test_many_in_the_same_minute_are_a_crowd():
    assert lint(crowd(10), now=NOW) == [
        Finding(
            "",
            "crowd",
            "10 schedules fire at 2026-11-22 02:30 UTC (job-0, job-1, job-2 and 7 more)" + _ADVICE,
        )
    ]
    assert lint(crowd(9), now=NOW) == []
    assert len(lint(crowd(9), now=NOW, many=9)) == 1


def test_jitter_dissolves_a_crowd():
    assert lint(crowd(20, {"jitter": 60}), now=NOW) == []


def test_the_fullest_minutes_are_told_first():
    schedules = [
        (f"{hour}-{k}", Cron(f"0 {hour} * * *"), {})
        for hour, count in ((1, 3), (2, 6), (3, 4), (4, 5))
        for k in range(count)
    ]
    texts = [text for _, _, text in lint(schedules, now=NOW, many=3)]
    assert [text[:43] for text in texts] == [
        "6 schedules fire at 2026-11-22 02:00 UTC (2",
        "5 schedules fire at 2026-11-22 04:00 UTC (4",
        "4 schedules fire at 2026-11-22 03:00 UTC (3",
    ]


def test_seconds_of_one_minute_count_as_one():
    schedules = [(f"job-{k}", Cron(f"{k} 30 2 * * *", seconds=True), {}) for k in range(10)]
    assert "crowd" in [code for _, code, _ in lint(schedules, now=NOW)]


def test_a_schedule_counts_once_in_a_minute():
    thrice = [(f"job-{k}", Cron("0,20,40 30 2 * * *", seconds=True), {}) for k in range(5)]
    assert "crowd" not in [code for _, code, _ in lint(thrice, now=NOW, many=6)]
    assert "crowd" in [code for _, code, _ in lint(thrice, now=NOW, many=5)]


def test_what_fires_all_the_time_is_no_part_of_a_crowd():
    assert lint([(f"job-{k}", Cron("* * * * *"), {}) for k in range(20)], now=NOW) == []


def test_a_trigger_of_the_users_may_have_no_hash():
    class Daily:
        __hash__ = None

        def next_after(self, now: datetime) -> datetime | None:
            return now + timedelta(days=1)

    assert [code for _, code, _ in lint([(f"job-{k}", Daily(), {}) for k in range(10)], now=NOW)] == ["crowd"]


def test_a_naive_time_is_refused():
    with pytest.raises(InvalidOption, match="now must be an aware datetime"):
        lint([], now=datetime(2026, 5, 1))  # noqa: DTZ001

"""A sample of cron expressions against a count of every minute (`cron-times --full` is all), and cronsim."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cron_oracle import changes, drawn_expression, windows
from scenario import discover, run_scenario

from jobsched.errors import InvalidOption
from jobsched.trigger import Cron

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca")
PAIRS = 300
DAY = timedelta(days=1)


def test_random_expressions_fire_when_a_count_of_the_minutes_says_so():
    line = run_scenario(discover()["cron-times"], seed=3107)
    assert line["ok"], json.dumps(line, indent=1)


def pairs(rng: random.Random) -> Iterator[tuple[Cron, datetime]]:
    """Yield triggers with starts that no clock shows for the second time: cronsim goes back there."""
    for zone, start in windows(rng, ZONES, ZONES):
        try:
            trigger = Cron(drawn_expression(rng, plain=True), timezone=zone)
        except InvalidOption:  # never fires
            continue
        if not start.astimezone(ZoneInfo(zone)).fold:
            yield trigger, start


def test_cronsim_differs_only_as_the_docs_say():
    cronsim = pytest.importorskip("cronsim", reason="cronsim is not installed: pip install 'jobsched[test]'")
    compared = 0
    for trigger, start in pairs(random.Random(3107)):
        theirs = cronsim.CronSim(trigger.expr, start.astimezone(ZoneInfo(trigger.timezone)))
        minute, hour = trigger.expr.split()[:2]
        at = start
        for _ in range(10):
            at = trigger.next_after(at)
            expected = next(theirs).astimezone(UTC)
            if at != expected:
                is_rhythm_there = minute[0] == "*" != hour[0]
                is_half_an_hour = trigger.timezone == "Australia/Lord_Howe" and hour[0] == "*"
                assert is_rhythm_there or is_half_an_hour, (trigger, at, expected)
                assert any(abs(change - min(at, expected)) < DAY for change in changes(trigger.timezone))
                break
        compared += 1
        if compared == PAIRS:
            break
    assert compared == PAIRS


def test_cronsim_takes_minutes_with_a_star_for_a_rhythm():
    cronsim = pytest.importorskip("cronsim", reason="cronsim is not installed: pip install 'jobsched[test]'")
    start = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    ours = Cron("*/15 2 * * *", timezone="Europe/Berlin").next_after(start)
    assert ours == datetime(2026, 3, 29, 1, tzinfo=UTC)  # 03:00, once for all
    assert next(cronsim.CronSim("*/15 2 * * *", start)) == datetime(2026, 3, 30, tzinfo=UTC)  # 02:00


def test_cronsim_misses_a_time_after_a_change_by_half_an_hour():
    cronsim = pytest.importorskip("cronsim", reason="cronsim is not installed: pip install 'jobsched[test]'")
    start = datetime(2026, 10, 4, 1, tzinfo=ZoneInfo("Australia/Lord_Howe"))
    ours = Cron("0,44 */7 * * *", timezone="Australia/Lord_Howe").next_after(start)
    assert ours == datetime(2026, 10, 3, 20, 0, tzinfo=UTC)  # 07:00
    theirs = next(cronsim.CronSim("0,44 */7 * * *", start)).astimezone(UTC)
    assert theirs == datetime(2026, 10, 3, 20, 44, tzinfo=UTC)

"""A sample of cron expressions against a count of every minute; `python tests/torture cron-times --full` is all."""

import json

from scenario import discover, run_scenario


def test_random_expressions_fire_when_a_count_of_the_minutes_says_so():
    line = run_scenario(discover()["cron-times"], seed=3107)
    assert line["ok"], json.dumps(line, indent=1)

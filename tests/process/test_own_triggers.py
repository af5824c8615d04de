"""A trigger of the user's own in a schedule of a node, which runs no code of theirs."""

from itertools import pairwise

import own_triggers
from nodes import eventually, serving

from jobsched.firing import REFILL
from jobsched.own_trigger import AHEAD


def test_a_trigger_of_ones_own_goes_on_behind_the_times_worked_out_ahead(tmp_path):
    with serving(tmp_path, "own_triggers", categories={"mail": {}}, workers=2) as (_, jobs):
        jobs.schedules.add("beat", "own_triggers:beat", own_triggers.Beat(20), "mail", misfire="run_all")
        eventually(lambda: jobs.schedules.get("beat").runs > 2 * AHEAD)
        history = jobs.schedules.history("beat", limit=1000)
        fired = sorted(firing.due for firing in history if firing.kind == "fired")
        assert {firing.kind for firing in history} == {"fired"}
        steps = {round((later - earlier).total_seconds() * 1000) for earlier, later in pairwise(fired)}
        assert steps == {20}


def test_more_times_of_a_schedule_that_is_gone_or_has_another_trigger_are_none(tmp_path):
    with serving(tmp_path, "own_triggers", categories={"mail": {}}, workers=1) as (_, jobs):
        jobs.schedules.add("other", "own_triggers:beat", "@daily", "mail")
        for name in ("gone", "other"):
            assert jobs.dispatch(REFILL, "mail", args=(name,)).result(20) == 0

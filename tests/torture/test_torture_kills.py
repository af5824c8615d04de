"""Every kill scenario of the torture suite with its quick counts; `make torture` runs the full ones."""

import json

import pytest
from scenario import discover, run_scenario

MODULES = {
    "kill_client_scenarios",
    "kill_node_scenarios",
    "kill_batch_scenarios",
    "kill_schedule_scenarios",
    "clock_step_scenarios",
    "kill_worker_scenarios",
    "stop_scenarios",
    "stray_scenarios",
}
NAMES = [name for name, chosen in discover().items() if chosen.run.__module__ in MODULES]


@pytest.mark.parametrize("name", NAMES)
def test_the_promises_hold_in_the_scenario(name):
    line = run_scenario(discover()[name], seed=1)
    assert line["ok"], json.dumps(line, indent=1)

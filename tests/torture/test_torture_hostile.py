"""Bad clients, bad jobs and the soak with their quick counts; `make torture` runs the full ones."""

import json

import pytest
from scenario import discover, run_scenario

MODULES = {"hostile_client_scenarios", "hostile_job_scenarios", "soak_scenarios"}
NAMES = [name for name, chosen in discover().items() if chosen.run.__module__ in MODULES]


@pytest.mark.parametrize("name", NAMES)
def test_the_node_stays_well_in_the_scenario(name):
    line = run_scenario(discover()[name], seed=1)
    assert line["ok"], json.dumps(line, indent=1)

"""Every storage scenario of the torture suite with its quick counts; `make torture` runs the full ones."""

import json

import preload
import pytest
from scenario import Torture, discover, run_scenario

NAMES = ("power-cut", "write-errors", "disk-full", "disk-full-schedules", "bit-flips", "crash-points")


@pytest.mark.parametrize("name", NAMES)
def test_the_promises_hold_in_the_scenario(name):
    line = run_scenario(discover()[name], seed=1)
    if "skipped" in line:
        pytest.skip(line["skipped"])
    assert line["ok"], json.dumps(line, indent=1)


@pytest.mark.skipif(preload.why_not() is not None, reason=str(preload.why_not()))
@pytest.mark.parametrize("flag", ["sync", "metasync"])
def test_a_store_that_does_not_flush_is_found_out(tmp_path, flag):
    import power_cut_scenarios as power_cut  # noqa: PLC0415 (scenario.py says where its imports lie)

    library = preload.compiled("record_writes", tmp_path)
    log = tmp_path / "run.log"
    power_cut.record_turns(library, tmp_path / "store", log, "run", 1, flag)
    torture = Torture(1, tmp_path)
    found = power_cut.judge(torture, log, tmp_path, 60)
    assert found.total() == 60
    assert found.total() - found["ok"] - found["unborn"] > 10
    assert torture.failures

import math

import pytest

from jobsched.config import PressureConfig
from jobsched.pressure import Load, Pressure, read_load


def held(pressure: Pressure, loads: list[Load]) -> str:
    """One sample a second; return `#` where starts were held, `.` where not."""
    return "".join(
        "#" if pressure.step(now, lambda load=load: load) else "." for now, load in enumerate(loads)
    )


@pytest.mark.parametrize(
    ("percents", "expected"),
    [
        ([96, 96, 96], "..#"),
        ([96, 96, 95, 96, 96, 96], ".....#"),  # not in a row; the limit itself is allowed
        ([100, 100, 100, 84, 84, 84], "..###."),
        ([96, 96, 96, 85, 85, 85, 85], "..#####"),  # ten points below is not yet calm
        ([96, 96, 96, 84, 84, 90, 84, 84, 84], "..######."),
        ([96, 96, 96, 0, 0, 0, 96, 96, 96], "..###...#"),
        ([0, 100] * 5, ".........."),
        ([96, 96, 96, 0, 96, 0, 0, 96, 0, 0, 0], "..########."),
    ],
)
def test_three_samples_in_a_row_change_sides(percents, expected):
    cpu = Pressure(PressureConfig(max_cpu=95))
    memory = Pressure(PressureConfig(max_memory=95))
    assert held(cpu, [Load(percent, 0) for percent in percents]) == expected
    assert held(memory, [Load(0, percent) for percent in percents]) == expected


def test_either_limit_holds_and_both_must_release():
    pressure = Pressure(PressureConfig(max_cpu=80, max_memory=90))
    loads = [Load(99, 0)] * 3 + [Load(99, 99)] * 3 + [Load(0, 99)] * 3 + [Load(0, 0)] * 3
    assert held(pressure, loads) == "..#########."


def test_a_low_limit_releases_below_its_half():
    loads = [Load(11, 0)] * 3 + [Load(5, 0)] * 3 + [Load(4.9, 0)] * 3
    assert held(Pressure(PressureConfig(max_cpu=10)), loads) == "..######."


def test_a_load_without_a_limit_does_not_count():
    assert held(Pressure(PressureConfig(max_cpu=80)), [Load(0, 100)] * 4) == "...."


def test_the_reason_names_the_load_and_the_limit():
    pressure = Pressure(PressureConfig(max_cpu=95, max_memory=87.5))
    reasons = []
    for now, load in enumerate([Load(97.4, 0)] * 3 + [Load(88, 99)] * 3 + [Load(0, 0)] * 3):
        pressure.step(now, lambda load=load: load)
        reasons.append(pressure.reason)
    assert reasons[1:4] == ["", "cpu at 97 %, above 95 %", "cpu at 88 %, held until below 85 %"]
    assert reasons[5] == "cpu at 88 %, held until below 85 %; memory at 99 %, above 87.5 %"
    assert reasons[8] == ""


def test_samples_are_a_second_apart():
    pressure, taken = Pressure(PressureConfig(max_cpu=95)), []
    assert pressure.timeout_s(50.0) == 0.0
    for now in (50.0, 50.25, 50.999, 51.0, 51.5, 60.0, 60.5):
        pressure.step(now, lambda now=now: taken.append(now) or Load(0, 0))
    assert taken == [50.0, 51.0, 60.0]
    assert (pressure.timeout_s(60.75), pressure.timeout_s(70.0)) == (0.25, 0.0)


def test_without_limits_nothing_is_sampled_or_held():
    pressure = Pressure(PressureConfig())
    assert not pressure.step(1.0, lambda: pytest.fail("no limit needs a sample"))
    assert (pressure.is_held, pressure.reason, pressure.timeout_s(1.0)) == (False, "", math.inf)


def test_the_load_of_this_machine_is_in_percent():
    for load in (read_load(), read_load()):
        assert 0 <= load.cpu_percent <= 100
        assert 0 < load.memory_percent < 100

import json
import statistics

import pytest

from jobsched.bench.report import machine, measure, quantile, summary, waits, write_report
from jobsched.cli.bench_report import counts, figure
from jobsched.errors import InvalidOption

RUNS = [{"jobs_per_s": 30, "floor": {"p50_ms": 1.0}}, {"jobs_per_s": 10, "floor": {"p50_ms": 3.0}}]


def test_each_figure_has_its_median_at_any_depth():
    assert summary([*RUNS, {"jobs_per_s": 20}], statistics.median) == {
        "jobs_per_s": 20,
        "floor": {"p50_ms": 2.0},
    }


def test_what_is_no_number_is_not_summarized():
    runs = [{"name": "a", "good": True, "series": [1, 2], "ms": 1}, {"name": "b", "good": True, "ms": 3}]
    assert summary(runs, max) == {"ms": 3}


def test_a_report_keeps_every_run_and_says_how_far_they_are_apart():
    left = iter(RUNS)
    report = measure("some", lambda _: next(left), {"jobs": 5}, runs=2)
    assert report["runs"] == RUNS
    assert report["median"] == {"jobs_per_s": 20, "floor": {"p50_ms": 2.0}}
    assert report["spread"] == {"jobs_per_s": [10, 30], "floor": {"p50_ms": [1.0, 3.0]}}
    assert (report["bench"], report["settings"]) == ("some", {"jobs": 5})


def test_a_short_run_is_repeated_and_a_long_one_is_not():
    times = iter([0.0, 9.9])
    assert len(measure("short", lambda _: {}, {}, clock=lambda: next(times))["runs"]) == 5
    times = iter([0.0, 10.0])
    assert len(measure("long", lambda _: {}, {}, clock=lambda: next(times))["runs"]) == 1


def test_progress_names_the_run():
    heard = []
    measure(
        "some", lambda tell: tell("jobs", 1, 2) or {}, {}, runs=2, tell=lambda *words: heard.append(words)
    )
    assert heard == [("run 1, jobs", 1, 2), ("run 2, jobs", 1, 2)]


def test_the_machine_is_named(tmp_path):
    here = machine(tmp_path)
    assert here["cores"] >= 1
    assert here["memory_gb"] > 0
    assert all(
        here[name] for name in ("cpu", "kernel", "python", "jobsched", "py_lmdb", "lmdb", "file_system")
    )


def test_a_written_report_is_read_back(tmp_path):
    report = measure("some", lambda _: {"jobs_per_s": 1}, {}, runs=1)
    write_report(report, tmp_path / "some.json")
    assert json.loads((tmp_path / "some.json").read_text()) == report


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 3), (0.95, 4), (1.0, 4)])
def test_a_quantile_is_a_value_that_was_measured(share, value):
    assert quantile([1, 2, 3, 4], share) == value


def test_waits_need_no_order():
    assert waits([float(ms) for ms in range(100, 0, -1)], "x_") == {
        "x_p50_ms": 51.0, "x_p95_ms": 96.0, "x_p99_ms": 100.0, "x_max_ms": 100.0,
    }  # fmt: skip


def test_no_waits_have_no_figures():
    assert waits([]) == {}


def test_counts_are_read_from_a_list():
    assert counts("--clients", "1, 4,1_000") == [1, 4, 1000]


@pytest.mark.parametrize("text", ["", "1,,2", "0", "-1", "1,a", "1.5"])
def test_what_is_no_list_of_counts_is_refused(text):
    with pytest.raises(InvalidOption, match="--clients"):
        counts("--clients", text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(20_000, "20,000"), (1234.5, "1,234"), (12.345, "12.35"), (0.12345, "0.123"), (0, "0")],
)
def test_a_figure_has_no_more_digits_than_mean_something(value, text):
    assert figure(value) == text

"""Each scenario of `jobsched bench` once, at a tiny size: its figures are there and make sense."""

import json
import os
import signal
import subprocess

import psutil
import pytest
from waiting import wait_for


def bench(empty, *words):
    """Run a scenario; return its report. It leaves nothing behind but what it was asked to write."""
    before = set(empty.folder.iterdir())
    report = empty.process("bench", *words, "--runs", "1", "--json").json
    assert set(empty.folder.iterdir()) == before
    assert report["bench"] == words[0]
    assert len(report["runs"]) == 1
    return report


def test_the_floor_ends_every_job_of_the_last_batch_too(empty):
    report = bench(empty, "floor", "--jobs", "101", "--batch", "10", "--workers", "3")
    assert report["commits"] == 5  # 4 batches of 3 x 10, and the end of the last one
    assert report["jobs_per_s"] > 0


def test_a_drain_is_compared_with_the_floor_of_its_run(empty):
    figures = bench(empty, "drain", "--jobs", "200", "--floor")["median"]
    assert figures["of_floor"] == pytest.approx(figures["jobs_per_s"] / figures["floor_jobs_per_s"], rel=0.05)
    assert "idle_share" not in figures


def test_a_drain_of_jobs_that_take_time_tells_what_is_lost_between_them(empty):
    figures = bench(empty, "drain", "--jobs", "40", "--sleep", "10ms")["median"]
    assert figures["seconds"] >= 40 * 0.01 / 2
    assert 0 <= figures["idle_share"] < 1


def test_enqueue_counts_the_jobs_of_all_clients_on_disk(empty):
    figures = bench(empty, "enqueue", "--jobs", "10", "--clients", "1,3", "--bulk", "50")["median"]
    assert figures.keys() == {"clients_1", "clients_3", "bulk_jobs_per_s", "floor"}
    assert figures["clients_3"]["p50_ms"] <= figures["clients_3"]["max_ms"]


def test_latency_has_a_commit_and_an_executor_beside_it(empty):
    figures = bench(empty, "latency", "--jobs", "10", "--rate", "100")["median"]
    for name in ("", "commit_", "executor_"):
        assert 0 < figures[f"{name}p50_ms"] <= figures[f"{name}p99_ms"] <= figures[f"{name}max_ms"]
    assert figures["p50_in_commits"] > 0


def test_urgent_jobs_wait_and_bulk_goes_on(empty):
    words = ("--jobs", "10", "--rate", "50", "--bulk", "2000", "--workers", "2")
    figures = bench(empty, "urgent", *words)["median"]
    assert 0 < figures["p50_ms"] <= figures["max_ms"]
    assert 0 < figures["bulk_share"] <= 1


def test_urgent_says_when_its_bulk_is_too_small(empty):
    ran = empty.process("bench", "urgent", "--jobs", "20", "--rate", "20", "--bulk", "20", code=1)
    assert "queue more" in ran.err


def test_a_step_in_the_load_moves_workers(empty):
    words = ("--workers", "4", "--ratio", "3", "--every", "100ms", "--sleep", "10ms")
    figures = bench(empty, "rebalance", *words)["median"]
    assert figures["moves"] >= 1
    assert figures["ticks"] >= 1


def test_scale_compares_with_its_smallest_size(empty):
    figures = bench(empty, "scale", "--sizes", "200,100", "--drained", "50")["median"]
    assert list(figures) == ["queued_100", "queued_200"]
    assert figures["queued_100"]["of_smallest"] == 1
    for at_size in figures.values():
        assert at_size["private_mb"] > 5
        assert at_size["start_ms"] > 0


def test_a_table_fits_80_columns_and_the_report_is_written_where_it_is_asked_for(empty):
    lines = empty.process(
        "bench", "floor", "--jobs", "10", "--runs", "2", "--out", "it.json"
    ).out.splitlines()
    assert lines[0].split() == ["figure", "median", "min", "max"]
    assert max(map(len, lines)) <= 80
    report = json.loads((empty.folder / "it.json").read_text())
    assert len(report["runs"]) == 2
    assert report["settings"] == {"jobs": 10, "workers": 2, "batch": 256}


def alive_in(session):
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("scenario", ["drain", "enqueue"])
def test_an_interrupt_leaves_no_process_and_no_folder(empty, scenario):
    before = set(empty.folder.iterdir())
    command = empty.command("bench", scenario, "--jobs", "20000")
    with subprocess.Popen(
        command, cwd=empty.folder, env=empty.environment, stderr=subprocess.PIPE, start_new_session=True
    ) as running:
        wait_for(lambda: list(empty.folder.glob(".jobsched-bench-*/store/node.sock")))
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, b"")
    assert set(empty.folder.iterdir()) == before
    wait_for(lambda: not alive_in(running.pid))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("floor", "--out", "nowhere/floor.json"), "--out"),
        (("enqueue", "--clients", "1,x"), "--clients"),
        (("rebalance", "--sleep", "0s"), "--sleep"),
        (("drain", "--sleep", "soon"), "--sleep"),
    ],
)
def test_bad_options_are_named_before_anything_is_measured(empty, words, said):
    assert said in empty("bench", *words, code=2).err

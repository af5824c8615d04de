"""The load generator, on nodes of its own and on one that runs."""

import json
import os
import re
import signal
import subprocess

import pytest
from waiting import is_there, left_in, wait_for

from jobsched.config import load_config
from jobsched.job import State
from jobsched.node_connection import NodeConnection
from jobsched.store.lmdb import open_store

SECONDS = 30.0


def test_every_job_of_a_load_is_accounted_for(empty):
    ran = empty.process(
        *("bench", "load", "--rate", "300", "--for", "1s", "--mix", "mail=3,reports=1", "--time", "1ms"),
        *("--fail", "mail=20%", "--seed", "4", "--json", "--out", "load.json"),
    )
    figures, plan = ran.json, ran.json["median"]
    assert json.loads((empty.folder / "load.json").read_text())["runs"] == figures["runs"]
    assert plan["dispatched"] == plan["planned"] == plan["accepted"] == plan["completed"] + plan["failed"]
    assert (plan["refused"], plan["unended"]) == (0, 0)
    assert 230 < plan["planned"] < 370
    mail, reports = figures["categories"]["mail"], figures["categories"]["reports"]
    assert mail["planned"] + reports["planned"] == plan["planned"]
    assert 0 < mail["failed"] < 0.4 * mail["planned"]
    assert reports["failed"] == 0
    assert 0 < plan["p50_ms"] <= plan["p95_ms"] <= plan["p99_ms"] <= plan["max_ms"]
    assert plan["rate_wanted"] == plan["planned"]
    assert figures["settings"]["seed"] == 4
    assert figures["runs"][0]["samples"][0].keys() == {"t_s", "mail", "reports"}
    assert left_in(empty.folder) == []


def test_the_table_has_the_categories_and_the_rates(empty):
    ran = empty.process("bench", "load", "--arrival", "burst:10", "--jobs", "20", "--rate", "100")
    assert re.search(r"^category +dispatched +completed +p50_ms", ran.out)
    assert re.search(r"^total +20 +20 ", ran.out, re.MULTILINE)
    assert "jobs/s of " in ran.out


def test_a_load_takes_the_settings_of_a_configuration_and_leaves_its_store_alone(project):
    config = project.folder / "categories.toml"
    config.write_text(
        config.read_text().replace("[categories.reports]", "[categories.reports]\nmax_pending = 1")
    )
    (project.folder / "trace.csv").write_text("".join("0,reports,0.2\n" for _ in range(9)) + "0.1,mail\n")
    ran = project.process("-c", "categories.toml", "bench", "load", "--trace", "trace.csv", "--json")
    figures = ran.json["categories"]
    assert figures["mail"]["completed"] == 1
    assert figures["reports"]["refused"] > 0
    assert ran.json["refused_as"] == {"QueueFull": figures["reports"]["refused"]}
    assert figures["reports"]["refused"] + figures["reports"]["completed"] == 9
    assert not (project.folder / ".jobsched").exists()


@pytest.fixture
def node(project):
    config = project.folder / "categories.toml"
    config.write_text(config.read_text().replace('["tasks"]', '["tasks", "jobsched.bench.tasks"]'))
    started = subprocess.Popen(
        project.command("run"), cwd=project.folder, env=project.environment, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    place = load_config(config).store.path
    wait_for(lambda: _answers(place))
    yield place
    started.terminate()
    assert started.wait(SECONDS) == 0


def _answers(place):
    try:
        NodeConnection(place).close()
    except OSError:
        return False
    return True


def counts(place):
    store = open_store(place)
    try:
        return {state: sum(row[state] for row in store.stats().values()) for state in State}
    finally:
        store.close()


def test_a_load_on_a_running_node_leaves_nothing_waiting(project, node):
    ran = project.process(
        *("-c", "categories.toml", "bench", "load", "--running", "--arrival", "burst:50", "--jobs", "50"),
        *("--mix", "mail", "--time", "1s", "--wait", "500ms", "--json"),
    )
    assert ran.json["accepted"] == 50
    assert ran.json["unended"] > 0
    wait_for(lambda: not counts(node)[State.PENDING] and not counts(node)[State.IN_PROGRESS])
    assert counts(node)[State.CANCELLED] == ran.json["unended"]


def test_a_running_node_must_be_there_and_know_the_task(project):
    told = project("bench", "load", "--running", code=2).err
    assert "no node answers on" in told
    assert "leave out --running" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arrival", "never"], "'never' is no arrival process"),
        (["--fail", "2"], "expected a share from 0% to 100%, got '2'"),
        (["--trace", "none.csv"], "none.csv: cannot be read"),
        (["--for", "5"], "'5' has no unit"),
        (["--out", "none/load.json"], "--out: cannot write 'none/load.json'"),
        (["--running", "--workers", "3"], "--workers is for a node of our own"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(project, words, message):
    assert message in project("bench", "load", *words, code=2).err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_and_no_folder(empty, number):
    process = subprocess.Popen(
        empty.command("bench", "load", "--for", "60s"), cwd=empty.folder, env=empty.environment,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert "dispatched" in process.stderr.readline()
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert left_in(empty.folder) == []
    wait_for(lambda: not is_there(process.pid))


def test_a_terminal_shows_how_far_the_load_is(empty):
    shown = empty.at_a_terminal("bench", "load", "--for", "1500ms", "--mix", "mail")
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert re.search(r"load on a node of our own   1\.\d s of 1\.5 s", shown)
    assert "dispatched" in shown
    assert re.search(r"accepted [\d.]+ jobs/s of", shown)

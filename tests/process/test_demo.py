"""The demo as its users run it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

FILES = 300


@pytest.fixture
def start(tmp_path):
    """Start the demo in an empty folder with an empty home and its own temporary folder."""
    processes = []
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "jobsched", "demo", *options],
            cwd=tmp_path,
            env=clean_environment() | {"HOME": str(tmp_path), "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBSCHED")}


def test_the_demo_agrees_with_the_files_and_leaves_nothing(start, tmp_path):
    process = start("--json", "--files", str(FILES))
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    told = json.loads(out)
    assert told["check"]["ok"]
    assert told["files"] == FILES + 2
    assert told["jobs"] == told["check"]["expected"] == told["check"]["agree"]
    assert {name: row["jobs"] for name, row in told["categories"].items() if name != "index"} == {
        "checksum": FILES + 2,
        "compress": FILES + 2,
    }
    assert {"unclosed_bracket.py", "missing_indent.py"} <= {failure["file"] for failure in told["failures"]}
    assert all(failure["category"] == "index" for failure in told["failures"])
    assert told["moves"] > 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_without_a_terminal_it_prints_lines_and_a_summary(start):
    process = start("--files", "100")
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert "IndentationError: expected an indented block" in out
    assert "checked against the files: " in out
    assert "\x1b" not in out


def test_ctrl_c_drains_and_leaves_nothing(start, tmp_path):
    process = start()
    await_sockets(tmp_path / "tmp")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert list((tmp_path / "tmp").iterdir()) == []


def await_sockets(folder):
    """Wait until the demo's node listens, which it does once it handles signals."""
    deadline = time.monotonic() + 30
    while not any(path.is_socket() for path in folder.glob("*/store/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)

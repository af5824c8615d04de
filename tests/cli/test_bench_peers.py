"""The comparison with other libraries: ours in any case, the others where they are."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from waiting import is_there, left_in, wait_for

from jobsched.bench.peers import servers
from jobsched.bench.peers.processes import clean_environment, started
from jobsched.bench.peers.rivals import PEERS, absence

SECONDS = 30.0
TINY = ("bench", "peers", "--jobs", "200", "--pings", "10", "--rate", "50", "--runs", "1")


def present():
    return [peer for peer in PEERS if absence(peer) is None]


def test_ours_is_measured_and_who_is_not_there_is_named(empty):
    ran = empty.process(*TINY, "--json")
    ours = ran.json["median"]["jobsched"]
    assert ours["jobs"] == ours["executions"] == 200 + 1 + 10
    assert ours["workers"] == 2
    assert min(ours["jobs_per_s"], ours["enqueue_jobs_per_s"], ours["bulk_jobs_per_s"]) > 0
    assert 0 < ours["p50_ms"] <= ours["p99_ms"] <= ours["max_ms"]
    assert set(ran.json["skipped"]) | set(ran.json["peers"]) >= {peer.name for peer in PEERS}
    assert left_in(empty.folder) == []


def test_the_table_compares_and_says_why_one_is_skipped(empty):
    out = empty.process(*TINY, "--peer", "rq").out
    assert re.search(r"^median +drain/s +cpu_us +single/s", out)
    assert re.search(
        r"^jobsched +([\d,.]+|-) +([\d,.]+|-) +[\d,.]+ +[\d,.]+ +[\d,.]+ +[\d,.]+ +1 +1$", out, re.MULTILINE
    )
    assert re.search(
        r"^rq \(redis\)(: skipped: (not installed: pip install|redis-server)| [\d.]+: )", out, re.MULTILINE
    )


@pytest.mark.skipif(not present(), reason="none of the peers is installed: pip install 'jobsched[peers]'")
def test_the_others_lose_no_job_either(empty):
    peer = min(present(), key=lambda peer: peer.server or "")
    ran = empty.process(*TINY, "--peer", peer.name, "--json")
    theirs = ran.json["median"][peer.name]
    assert theirs["executions"] == theirs["jobs"]


def test_a_signal_leaves_no_process_and_no_folder(empty):
    process = subprocess.Popen(
        empty.command("bench", "peers", "--jobs", "100000", "--peer", "rq"), cwd=empty.folder,
        env=empty.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: any((empty.folder / name / "store").exists() for name in left_in(empty.folder)))
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert left_in(empty.folder) == []
    wait_for(lambda: not is_there(process.pid))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peer", "selery"], "unknown peer 'selery', did you mean 'celery'?"),
        (["--appendfsync", "never"], "--appendfsync: expected always, everysec, no, got 'never'"),
        (["--plot", "none/bars.png"], "--plot"),
        (["--out", "none/peers.json"], "--out: cannot write"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(empty, words, message):
    assert message in empty("bench", "peers", *words, code=2).err


@pytest.mark.parametrize(
    ("server", "serve"),
    [
        ("redis", lambda folder: servers.redis(folder, "always")),
        ("postgres", servers.postgres),
    ],
)
def test_a_server_listens_on_loopback_and_ends_with_its_block(server, serve):
    if servers.missing(server):
        pytest.skip(servers.missing(server))
    # Not below pytest's folder: a server of another user could not pass.
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as served:
        port = int(re.search(r"@127\.0\.0\.1:(\d+)/", served.url)[1])
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
        deadline = time.monotonic() + SECONDS
        while not (cpu_s := served.server.cpu_s()) and time.monotonic() < deadline:  # in steps of 10 ms
            socket.create_connection(("127.0.0.1", port), SECONDS).close()
        assert cpu_s > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), SECONDS)


def test_a_server_that_does_not_start_is_named_with_what_it_said(tmp_path, monkeypatch):
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with (
        pytest.raises(servers.NoServer, match="redis does not start: out of luck"),
        servers.redis(tmp_path, "no"),
    ):
        pytest.fail("it never started")


def test_what_is_started_ends_with_its_children(tmp_path):
    code = (
        "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('up', flush=True); sys.stdin.read()"
    )
    process = started(
        [sys.executable, "-c", f"{code}; import time; time.sleep(60)"], tmp_path, clean_environment(), "x"
    )
    try:
        wait_for(lambda: "up" in process.told())
    finally:
        process.end()
    assert not process.is_alive
    wait_for(lambda: not is_there(process._process.pid))

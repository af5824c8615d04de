"""Faults that are really there, and that `doctor` finds each of them with what mends it."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import msgspec
import pytest

from jobsched.codec import encode_record
from jobsched.doctor import contents, environment, machine, place
from jobsched.fence import MARKER
from jobsched.job import JobError, JobRecord, State
from jobsched.job_id import new_id
from jobsched.store import lmdb_layout as layout
from jobsched.store.base import NewJob, Outcome, Request, Slot, Turn
from jobsched.store.lmdb import open_store

NOW = time.time_ns() // 1000
HOUR = 3_600_000_000


def all_of(project, code=0):
    """What doctor finds, and whether its exit code says the same."""
    found = project("doctor", "--json", code=code).json
    assert found["ok"] == (code == 0)
    return found["findings"]


def found_by(project, area, level, code=None):
    """The findings of an area and a level, each as text and mend."""
    code = (level == "error") if code is None else code
    findings = all_of(project, int(code))
    return [(f["what"], f["mend"]) for f in findings if (f["area"], f["level"]) == (area, level)]


@pytest.fixture
def store(project):
    """The store of the project, with one pending job of mail."""
    project.dispatch("tasks:send", "--arg", '"a"')
    return project.folder / ".jobsched"


def new_job(category, *, due_at=0, made_at=None):
    job_id = new_id()
    if made_at is not None:
        job_id = (made_at // 1000).to_bytes(6, "big") + job_id[6:]
    empty = msgspec.Raw(msgspec.msgpack.encode([]))
    record = JobRecord(
        id=job_id, task="a:b", category=category, priority=0, dispatched_at=1, args=empty, kwargs=empty
    )
    return NewJob(job_id, record.task, category, 0, due_at, encode_record(record))


def apply(store, **steps):
    with contextlib.closing(open_store(store)) as opened:
        return opened.apply(Turn(now=NOW - 2 * HOUR, **steps))


@contextlib.contextmanager
def process(code, *words, **environment):
    """A process of ours that says ready and then waits; it is killed at the end."""
    command = [sys.executable, "-c", f"{code}\nprint('ready', flush=True); import time; time.sleep(60)"]
    env = {**os.environ, **environment}
    with subprocess.Popen([*command, *map(str, words)], stdout=subprocess.PIPE, env=env) as running:
        try:
            assert running.stdout.readline() == b"ready\n"
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def stopped(running):
    """A process that is stopped, as by Ctrl-Z."""
    running.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        running.send_signal(signal.SIGCONT)


# A machine that is well.


def test_all_is_well_beside_a_running_node(project, store):
    with project.node() as running:
        findings = all_of(project)
    assert {"python", "libraries", "engine", "kernel", "limits", "config", "disk", "memory", "clock"} <= {
        finding["area"] for finding in findings
    }
    [answer] = [f["what"] for f in findings if f["area"] == "node"]
    assert answer.startswith(f"one runs (pid {running.pid}, since")
    assert answer.endswith("and answers")
    assert all(finding["mend"] for finding in findings if finding["level"] != "ok")


def test_nothing_is_made_where_nothing_was_dispatched(project):
    assert any("does not exist yet" in finding["what"] for finding in all_of(project))
    assert not (project.folder / ".jobsched").exists()


def test_a_memory_store_is_not_looked_for(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace("lmdb:.jobsched", "memory:"))
    assert any("lives in its node" in finding["what"] for finding in all_of(project))


def test_findings_fit_a_terminal_and_say_what_mends_them(project, store):
    shown = re.sub(r"\x1b\[[0-9;]*m", "", project.at_a_terminal("doctor")).splitlines()
    assert all(len(line) <= 80 for line in shown if " " in line.strip())
    place = next(
        number for number, line in enumerate(shown) if line.startswith("warn       jobs: waiting, and")
    )
    assert shown[place + 1].strip() == "jobsched run"
    assert re.fullmatch(r"errors: 0, warnings: \d+, fine: \d+", shown[-1])


# The configuration.


def test_a_broken_configuration_is_an_error(project):
    project.write("categories.toml", "workrs = 2\n[categories.mail]\n")
    problems = found_by(project, "config", "error")
    assert any("did you mean 'workers'?" in what for what, _ in problems)


def test_a_missing_configuration_is_an_error(empty):
    [(what, mend)] = found_by(empty, "config", "error")
    assert "no configuration at" in what
    assert "jobsched init" in mend


def test_a_module_that_cannot_be_imported_is_an_error(project):
    project.write("tasks.py", "1 / 0\n")
    [(what, mend)] = found_by(project, "config", "error")
    assert "tasks.py:1: ZeroDivisionError" in what
    assert mend.endswith("jobsched check")


# The store's directory.


def mended(mend):
    """Run what is said to mend it."""
    subprocess.run(shlex.split(mend), check=True)


def test_a_directory_that_others_can_write_is_an_error(project, store):
    store.chmod(0o777)
    [(what, mend)] = found_by(project, "store", "error")
    assert "can be written by others (mode 777)" in what
    mended(mend)
    assert found_by(project, "store", "error", code=0) == []


def test_a_file_that_others_can_read_is_an_error(project, store):
    (store / "data.mdb").chmod(0o644)
    [(what, mend)] = found_by(project, "store", "error")
    assert "data.mdb is open to others (mode 644)" in what
    mended(mend)
    assert found_by(project, "store", "error", code=0) == []


def test_broken_pages_are_an_error_and_lmdb_does_not_see_them(project, store):
    data = store / "data.mdb"
    data.write_bytes(data.read_bytes()[: 5 * 4096])
    [(what, mend)] = found_by(project, "pages", "error")
    assert "is broken" in what
    assert mend == "jobsched restore BACKUP"


def test_a_file_that_is_no_store_of_ours_is_an_error(project):
    store = project.folder / ".jobsched"
    store.mkdir(mode=0o700)
    lmdb.open(str(store), mode=0o600).close()
    assert "holds no store of ours" in found_by(project, "store", "error")[0][0]


def test_a_damaged_row_is_an_error(project, store):
    with lmdb.open(str(store), max_dbs=32, map_size=1 << 30) as env:
        db = env.open_db(b"scheduled")
        with env.begin(write=True, db=db) as txn:
            txn.put(b"not a key", b"")
    [(what, mend)] = found_by(project, "store", "error")
    assert what.endswith("a row in 'scheduled' has no key of ours: 6e6f742061206b6579")
    assert mend == "jobsched verify"


@pytest.mark.parametrize(
    ("found", "level", "mend"),
    [
        (layout.FORMAT + 1, "error", "upgrade jobsched"),
        (0, "warn", "jobsched backup"),
        (layout.FORMAT, "ok", ""),
    ],
)
def test_another_format_is_named(project, store, found, level, mend):
    with lmdb.open(str(store), max_dbs=32, map_size=1 << 30) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True, db=db) as txn:
            txn.put(b"format", str(found).encode())
    [(what, cure)] = found_by(project, "format", level)
    assert f"format {found}" in what
    assert cure.startswith(mend)


# Who stands in the way.


def test_a_node_that_is_stopped_is_an_error(project, store):
    with project.node() as running, stopped(running):
        [(what, mend)] = found_by(project, "node", "error")
        assert f"(pid {running.pid}, since" in what
        assert "is stopped" in what
        assert mend == f"kill -CONT {running.pid}"


def test_a_lock_whose_holder_answers_nobody_is_an_error(project, store):
    (store / "node.lock").write_text(json.dumps({"pid": 4711, "started": "then"}))
    with (store / "node.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [(what, _)] = found_by(project, "node", "error")
    assert "(pid 4711, since then) does not answer" in what


def test_a_stopped_process_in_a_write_transaction_is_an_error(project, store):
    code = "import lmdb, sys; env = lmdb.open(sys.argv[1], max_dbs=32); txn = env.begin(write=True)"
    with process(code, store) as running, stopped(running):
        [(what, mend)] = found_by(project, "writers", "error")
        assert what.startswith(f"pid {running.pid} (")
        assert "holds the store's write lock and is stopped" in what
        assert mend.startswith(f"kill -CONT {running.pid}")


def test_a_stopped_client_that_keeps_nodes_out_is_an_error(project, store):
    code = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH)"
    with process(code, store / "writers.lock") as running, stopped(running):
        [(what, mend)] = found_by(project, "node", "error")
        assert f"(pid {running.pid})" in what
        assert mend == f"kill -CONT {running.pid}"


def test_what_a_killed_node_left_is_found_by_its_marker(project, store):
    with process("", **{MARKER: str(store)}) as running:
        [(what, mend)] = found_by(project, "node", "warn")
        assert f"left of a killed node: 1 process, pid {running.pid}" in what
        assert mend.endswith(f"kill -9 {running.pid}")


def test_readers_of_killed_processes_are_let_go(project, store):
    code = "import lmdb, sys; env = lmdb.open(sys.argv[1], max_dbs=32, max_readers=1024)"
    with process(code, store):  # who opens it alone begins a new table of readers
        with process(f"{code}; txn = env.begin()", store) as running:
            running.kill()
            running.wait()
        assert ("1 of killed processes, let go of now", "") in found_by(project, "readers", "ok")


def test_a_journal_that_was_set_aside_is_named(project, store):
    assert ("0 clients have one", "") in found_by(project, "journals", "ok")
    (store / "journals").mkdir(exist_ok=True)
    aside = store / "journals" / f"{'0f' * 16}.unreadable"
    aside.write_bytes(b"damaged")
    [(what, mend)] = found_by(project, "journals", "error")
    assert str(aside) in what
    assert "delete the file" in mend


def test_a_reader_that_stays_is_named(project, store):
    code = "import lmdb, sys; env = lmdb.open(sys.argv[1], max_dbs=32, max_readers=1024); txn = env.begin()"
    with process(code, store) as running:
        with lmdb.open(str(store), max_dbs=32, map_size=1 << 30, sync=False) as env:
            for number in range(1001):
                with env.begin(write=True) as txn:
                    txn.put(b"test", str(number).encode())
        [(what, mend)] = found_by(project, "readers", "warn")
        assert what.startswith(f"pid {running.pid} reads a state 1,001 commits old")
        assert mend == f"kill {running.pid}"


# The jobs.


def test_jobs_that_wait_without_a_node_are_named(project, store):
    assert found_by(project, "jobs", "warn") == [("waiting, and no node runs: 1 job", "jobsched run")]


def test_a_paused_category_with_jobs_is_named(project, store):
    project("category", "pause", "mail")
    what, mend = found_by(project, "jobs", "warn")[0]
    assert what == "category 'mail' is paused and holds 1 job"
    project(*shlex.split(mend)[1:])
    assert len(found_by(project, "jobs", "warn")) == 1


def test_jobs_of_a_category_that_is_not_configured_are_an_error(project, store):
    apply(store, requests=[Request(jobs=[new_job("faxes")])])
    [(what, mend)] = found_by(project, "jobs", "error")
    assert "category 'faxes' holds 1 job and is not configured" in what
    assert "[categories.faxes]" in mend


def test_parked_and_quarantined_jobs_are_named(project, store):
    apply(store, requests=[Request(jobs=[new_job("reports"), new_job("reports")])])
    for _ in range(3):
        [claim] = apply(store, slots=[Slot("reports", 1, 1)]).claims
        apply(store, outcomes=[Outcome(claim.job, claim.number, State.PENDING, 1, 2, error=JobError("died"))])
    [claim] = apply(store, slots=[Slot("reports", 1, 1)]).claims
    apply(store, outcomes=[Outcome(claim.job, claim.number, State.PARKED, 1, 2, error=JobError("unknown"))])
    for what, mend in found_by(project, "jobs", "warn")[:2]:
        assert re.fullmatch(r"(parked|quarantined) in 'reports': 1 job, as .*", what)
        assert len(project(*shlex.split(mend)[1:], "--json").json) == 1


def test_scheduled_jobs_long_due_are_named(project, store):
    apply(store, requests=[Request(jobs=[new_job("mail", due_at=NOW - HOUR)])])
    [what, *_] = [what for what, mend in found_by(project, "jobs", "warn") if "scheduled" in what]
    assert re.match(r"1 scheduled job due for 3,\d{3} s and longer", what)


@pytest.mark.parametrize(
    ("rebooted", "text"), [(True, "the machine stopped"), (False, "the node was killed")]
)
def test_jobs_that_were_running_when_the_node_died_are_named(project, store, rebooted, text):
    apply(store, slots=[Slot("mail", 1, 1)])
    (store / "node.lock").touch(mode=0o600)
    if rebooted:
        os.utime(store / "node.lock", (1_000_000, 1_000_000))
    [(what, mend)] = found_by(project, "node", "warn")
    assert what.startswith(f"1 job in progress when {text}")
    assert ("jobsched verify" in mend) == rebooted


def test_a_clock_behind_the_newest_job_is_an_error(project, store):
    apply(store, requests=[Request(jobs=[new_job("mail", made_at=NOW + HOUR)])])
    [(what, mend)] = found_by(project, "clock", "error")
    assert "later than now: the clock was set back" in what
    assert mend == "timedatectl set-ntp true"


# The rules that need a worse machine than this one.

NO_LIMIT = resource.RLIM_INFINITY
KERNEL = {"pidfd": True, "subreaper": True, "memfd": True, "/proc": True}
GIB = 1 << 30


@pytest.mark.parametrize(
    ("finding", "level", "text"),
    [
        (environment.judge_python((3, 11, 7), "linux", "x86_64"), "ok", "Python 3.11.7 on linux x86_64"),
        (environment.judge_python((3, 12, 0), "darwin", "arm64"), "warn", "without pidfd"),
        (environment.judge_engine((0, 9, 36)), "ok", "LMDB 0.9.36"),
        (environment.judge_engine((1, 0, 2)), "error", "LMDB 1.0.2, expected 0.9"),
        (environment.judge_kernel(KERNEL), "ok", "with pidfd, subreaper"),
        (environment.judge_kernel({**KERNEL, "pidfd": False}), "warn", "pidfd not available"),
        (environment.judge_files((1024, 4096), 4), "ok", "1024 open files"),
        (environment.judge_files((NO_LIMIT, NO_LIMIT), 4), "ok", "unlimited open files"),
        (environment.judge_files((256, 4096), 4), "warn", "4 workers and their clients need about 288"),
        (environment.judge_map(NO_LIMIT), "ok", "enough"),
        (environment.judge_map(8 * GIB), "error", "address space is limited to 8,192 MiB"),
        (machine.judge_disk(10 * GIB, Path("/x")), "ok", "10.0 GiB free at /x"),
        (machine.judge_disk(100 << 20, Path("/x")), "warn", "100.0 MiB free"),
        (machine.judge_disk(5000, Path("/x")), "error", "no room to write"),
        (machine.judge_inodes(10**6, Path("/x")), "ok", "1,000,000 inodes free"),
        (machine.judge_inodes(None, Path("/x")), "ok", "enough"),
        (machine.judge_inodes(7, Path("/x")), "error", "7 inodes free"),
        (machine.judge_memory(8 * GIB), "ok", "8.0 GiB"),
        (machine.judge_memory(200 << 20), "warn", "200.0 MiB"),
        (machine.judge_memory(1 << 20), "error", "kill workers"),
        (machine.judge_clock(NOW, is_synchronised=True), "ok", "it is 20"),
        (machine.judge_clock(NOW, is_synchronised=None), "ok", "it is 20"),
        (machine.judge_clock(NOW, is_synchronised=False), "warn", "nothing keeps the clock right"),
        (machine.judge_clock(HOUR, is_synchronised=True), "error", ":00:00+00:00: the clock is wrong"),
        (place.judge_file_system("ext4", Path("/x")), "ok", "ext4"),
        (place.judge_file_system("tmpfs", Path("/x")), "warn", "a reboot empties it"),
        (place.judge_file_system("overlay", Path("/x")), "warn", "deleted with its container"),
        (contents.judge_size(300 << 20, 100 << 20), "ok", "300.0 MiB, 100.0 MiB of it in use"),
        (contents.judge_size(500 << 20, 100 << 20), "warn", "not given back"),
        (contents.judge_size(40 << 20, 0), "ok", "40.0 MiB"),
    ],
)  # fmt: skip
def test_each_rule(finding, level, text):
    assert (finding.level, text in finding.what) == (level, True), finding
    assert bool(finding.mend) == (level != "ok")


def test_jobs_long_due_are_an_error_while_a_node_runs():
    [finding] = contents.judge_overdue(5, NOW - HOUR, NOW, is_running=True)
    assert (finding.level, "does not release them" in finding.what) == ("error", True)
    assert list(contents.judge_overdue(0, 0, NOW, is_running=True)) == []


@pytest.mark.parametrize(
    "samples", [[], [(0, 0)] * 8, [(os.getpid(), os.getpid()), (0, 0)], [(2**29, 2**29)] * 8]
)
def test_a_lock_that_is_free_or_changes_hands_is_no_finding(samples):
    assert list(place.look_at_mutex(samples)) == []


def test_a_long_transaction_of_a_live_process_is_a_warning():
    [finding] = place.look_at_mutex([(os.getpid(), os.getpid())] * 8)
    assert (finding.level, f"pid {os.getpid()} (" in finding.what) == ("warn", True)

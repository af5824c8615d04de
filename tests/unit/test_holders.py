import fcntl
import os
import subprocess
import sys

import pytest

from jobsched import ownership
from jobsched.holders import described, lockers, openers
from jobsched.ownership import StoppedEarly

HOLD = """
import fcntl, sys
files = [open(path, "a") for path in sys.argv[2:]]
for file in files[: int(sys.argv[1])]:
    fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Have a process open files, and lock the first `count` of them."""
    started: list[subprocess.Popen[str]] = []

    def start(count, *paths):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count), *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_who_has_a_file_open_is_told_from_who_has_locked_it(hold, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    both, none = hold(1, first, second), hold(0, first)
    assert sorted(openers(first)) == sorted([both.pid, none.pid])
    assert (lockers(first), lockers(second), openers(second)) == ([both.pid], [], [both.pid])
    assert lockers(tmp_path / "third") == []


def test_a_file_is_the_same_by_another_path_and_another_one_by_the_same(hold, tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    process = hold(1, file)
    link.hardlink_to(file)
    assert (openers(link), lockers(link)) == ([process.pid], [process.pid])
    file.unlink()
    file.touch()
    assert (openers(file), lockers(file)) == ([], [])


def test_this_process_is_an_opener_too_and_no_locker(tmp_path):
    with (tmp_path / "file").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (openers(tmp_path / "file"), lockers(tmp_path / "file")) == ([os.getpid()], [])


def test_a_process_is_described_by_its_pid_its_command_and_that_it_is_stopped(hold, tmp_path):
    process = hold(0, tmp_path / "file")
    assert described(process.pid).startswith(f"pid {process.pid} ({sys.executable} -c")
    assert not described(process.pid).endswith("stopped")
    process.send_signal(19)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert described(process.pid).endswith("), which is stopped")
    assert described(1 << 22) == f"pid {1 << 22}"


def test_who_is_waited_for_is_said_again_and_again(hold, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ownership, "_SAY_EVERY_S", 0.1)
    writer = hold(1, tmp_path / "writers.lock")
    with (tmp_path / "writers.lock").open("a") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(StoppedEarly):
            ownership._outwait_writers(tmp_path, lock.fileno(), lambda: len(caplog.records) == 3)
        writer.kill()
        writer.wait()
        ownership._outwait_writers(tmp_path, lock.fileno(), lambda: False)
    assert (
        caplog.messages[:3]
        == [f"waiting for a client that writes to {tmp_path}: {described_as(writer.pid, tmp_path)}"] * 3
    )


def described_as(pid, folder):
    command = f"{sys.executable} -c {HOLD} 1 {folder / 'writers.lock'}"
    return f"pid {pid} ({' '.join(command.split())[:200]})"

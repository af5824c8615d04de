import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobsched import fence

HOLD = """
import os, sys
from pathlib import Path
from jobsched import fence
held = fence.take(Path(sys.argv[1]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""

WAIT = """
import sys
print("up", flush=True)
sys.stdin.read()
"""

SWEEP = """
import sys
from pathlib import Path
from jobsched import fence
print(fence.sweep(Path(sys.argv[1])), flush=True)
"""


class Processes:
    """Starts real processes; ends those that are left."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: object, marked: Path | None = None) -> subprocess.Popen[str]:
        """Start a script and wait for its first line."""
        environment = {key: value for key, value in os.environ.items() if key != fence.MARKER}
        environment["PYTHONPATH"] = str(Path(fence.__file__).parents[1])
        if marked is not None:
            environment[fence.MARKER] = str(marked)
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._started.append(process)
        process.first_line = process.stdout.readline().strip()
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def processes():
    processes = Processes()
    yield processes
    processes.end()


@pytest.fixture
def store(tmp_path):
    fence.clear(tmp_path)
    return tmp_path


def died_of(process: subprocess.Popen[str]) -> int:
    """Wait for a process; return the number of the signal that ended it."""
    return -process.wait(10)


def test_a_fence_is_held_while_its_worker_lives_and_free_after_a_kill(store, processes):
    worker = processes.start(HOLD, store, 7)
    assert fence.is_held(store, 7)
    assert not fence.is_held(store, 8)
    assert fence.holders(store, 7) == [worker.pid]
    assert fence.holders(store, 8) == []
    worker.kill()
    assert died_of(worker) == 9
    assert not fence.is_held(store, 7)


def test_a_fence_is_free_when_its_worker_has_left(store, processes):
    worker = processes.start(HOLD, store, 7)
    worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert not fence.is_held(store, 7)


def test_the_number_of_a_fence_is_never_taken_twice(store):
    held = fence.take(store, 7)
    with pytest.raises(FileExistsError):
        fence.take(store, 7)
    os.close(held)
    with pytest.raises(FileExistsError):
        fence.take(store, 7)


def test_looking_at_a_fence_does_not_take_it(store):
    held = fence.take(store, 7)
    assert [fence.is_held(store, 7) for _ in range(3)] == [True] * 3
    os.close(held)
    assert [fence.is_held(store, 7) for _ in range(3)] == [False] * 3


def test_waiting_for_fences_kills_who_holds_them(store, processes):
    workers = [processes.start(HOLD, store, number) for number in (1, 2)]
    other = processes.start(HOLD, store, 3)
    assert fence.wait_free(store, [1, 2, 99]) == frozenset()
    assert [died_of(worker) for worker in workers] == [9, 9]
    assert other.poll() is None
    assert fence.is_held(store, 3)


def test_a_child_that_inherited_a_fence_is_found_and_killed(store, processes):
    forking = HOLD.replace("print(", "os.fork() and os._exit(0)\nprint(")
    parent = processes.start(forking, store, 7)
    assert parent.wait(10) == 0
    assert fence.is_held(store, 7)
    (child,) = fence.holders(store, 7)
    assert child != parent.pid
    assert fence.wait_free(store, [7]) == frozenset()
    assert not fence.is_held(store, 7)


def test_a_fence_that_stays_held_is_reported(store, monkeypatch):
    monkeypatch.setattr(fence, "_PATIENCE_S", 0.02)
    held = fence.take(store, 7)  # by this very process, which is spared
    assert fence.wait_free(store, [7, 8]) == frozenset({7})
    os.close(held)
    assert fence.wait_free(store, [7, 8]) == frozenset()


def test_clearing_makes_a_private_folder_and_forgets_earlier_fences(tmp_path):
    fence.clear(tmp_path)
    assert (tmp_path / "fences").stat().st_mode & 0o777 == 0o700
    os.close(fence.take(tmp_path, 7))
    assert (tmp_path / "fences" / "7").stat().st_mode & 0o777 == 0o600
    fence.clear(tmp_path)
    os.close(fence.take(tmp_path, 7))


def test_a_sweep_finds_what_is_left_of_a_store_whose_path_was_spelled_otherwise(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shop")
    spelled = [tmp_path / name / "store" for name in ("shop", "link", "link/../shop")]
    assert {fence.marked(path) for path in spelled} == {str(tmp_path.resolve() / "shop" / "store")}


def test_a_sweep_kills_what_is_marked_with_this_store_alone(tmp_path, processes):
    mine, others = tmp_path / "mine", tmp_path / "mine-too"
    left = [processes.start(WAIT, marked=mine) for _ in range(2)]
    spared = [processes.start(WAIT, marked=others), processes.start(WAIT)]
    assert fence.sweep(mine) == 2
    assert [died_of(process) for process in left] == [9, 9]
    assert [process.poll() for process in spared] == [None, None]
    assert fence.sweep(mine) == 0


def test_a_sweep_spares_those_that_started_it(tmp_path, processes):
    nested = (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', *sys.argv[1:]], capture_output=True, text=True).stdout,"
        " flush=True)\n"
        "sys.stdin.read()\n"
    )
    bystander = processes.start(WAIT, marked=tmp_path)
    starter = processes.start(nested, SWEEP, tmp_path, marked=tmp_path)
    assert starter.first_line == "1"
    assert starter.poll() is None
    assert died_of(bystander) == 9

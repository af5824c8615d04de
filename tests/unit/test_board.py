import os
import select
import signal
import subprocess
import sys

import pytest

from jobsched.board import Board, Posted

RING = 16 << 10
RUNNING = Posted(7, 1_000, 2_000, -1, 5_000_000)

WORKER = """
import resource, sys
from jobsched.board import Board, Posted
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
board = Board(int(sys.argv[1]))
def tell(what):
    print(what, flush=True)
    sys.stdin.readline()
"""


class Worker:
    """Another process at the same board, led line by line."""

    def __init__(self, board: Board, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER + script, str(board.handle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=[board.handle],
        )

    def hear(self) -> str:
        """Return the next line that it tells, within 10 s."""
        assert select.select([self.process.stdout], [], [], 10)[0]
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> int:
        self.process.kill()
        self.process.communicate()
        return self.process.returncode


@pytest.fixture
def board():
    board = Board.new()
    yield board
    board.close()


@pytest.fixture
def start(board):
    """A function that starts a worker with a script."""
    started: list[Worker] = []

    def begin(script: str) -> Worker:
        started.append(Worker(board, script))
        return started[-1]

    yield begin
    for worker in started:
        worker.end()


def test_a_new_board_says_that_nothing_runs(board):
    assert board.posted == Posted(0, 0, 0, 0, 0)
    assert (board.output(), board.fault(), board.has_output) == ("", "", False)
    assert board.cancel_stage(7) == 0


def test_what_a_worker_writes_is_read_by_its_node_and_the_other_way_round(board, start):
    worker = start(f"""
board.post{tuple(RUNNING)}
board.write("grüße\\n".encode())
tell("posted")
tell(f"{{board.cancel_stage(7)}} {{board.cancel_stage(8)}}")
board.clear()
tell("cleared")
""")
    assert worker.hear() == "posted"
    assert (board.posted, board.output(), board.has_output) == (RUNNING, "grüße\n", True)
    board.ask_cancel(7, 2)
    worker.go_on()
    assert worker.hear() == "2 0"
    worker.go_on()
    assert worker.hear() == "cleared"
    assert board.posted.claim == 0
    assert board.output() == "grüße\n"


def test_a_claim_is_never_seen_with_the_times_of_an_earlier_one(board, start):
    worker = start("""
from itertools import count
tell("up")
for n in count(1):
    board.post(n, n, n)
    board.clear()
""")
    assert worker.hear() == "up"
    worker.go_on()
    seen = [board.posted for _ in range(200_000)]
    worker.end()
    assert [posted for posted in seen if 0 < posted.kill_at < posted.claim] == []


def test_what_a_worker_wrote_outlives_its_death(board, start):
    worker = start(f"board.post{tuple(RUNNING)}; board.write(b'last words'); tell('up')")
    assert worker.hear() == "up"
    assert worker.end() == -signal.SIGKILL
    assert (board.posted, board.output(), board.fault()) == (RUNNING, "last words", "")


def test_a_fault_of_python_says_where_it_was(board, start):
    worker = start("""
board.catch_faults()
board.post(7, 0)
board.write(b"x" * 40_000)
def stumble():
    import os, signal
    os.kill(os.getpid(), signal.SIGSEGV)
stumble()
""")
    assert worker.process.wait(10) == -signal.SIGSEGV
    assert "Segmentation fault" in board.fault()
    assert "in stumble" in board.fault()
    assert board.output().endswith("x" * RING)


def test_a_new_run_begins_its_output_anew(board):
    board.post(*RUNNING)
    board.write(b"x" * 20_000)
    board.post(*RUNNING._replace(claim=8))
    assert (board.output(), board.has_output) == ("", False)
    board.write(b"new")
    assert board.output() == "new"


@pytest.mark.parametrize(
    "sizes",
    [
        [RING],
        [RING - 1, 1],
        [RING, 1],
        [RING - 1, 3],
        [1] + [1000] * 40,
        [5, RING],
        [5, RING + 7],
        [3 * RING + 11],
        [100, 2 * RING, 100, RING - 1, 0, 2],
    ],
)
def test_of_long_output_the_end_is_kept(board, sizes):
    written = b""
    for size in sizes:
        part = bytes(97 + (len(written) + n) % 26 for n in range(size))
        board.write(memoryview(part))
        written += part
    head, _, text = board.output().rpartition("\n")
    assert text == written[-RING:].decode()
    left_out = len(written) - RING
    assert head == (f"… {left_out:,} bytes left out …" if left_out > 0 else "")


def test_a_character_that_is_cut_in_two_spoils_nothing_else(board):
    board.write(b"x" + "ü".encode() * (RING // 2))
    assert board.output().endswith("\n" + "ü" * (RING // 2))
    board.write(b"y")
    assert board.output().endswith("\n\ufffd" + "ü" * (RING // 2 - 1) + "y")


def test_bytes_that_are_no_text_can_be_read(board):
    board.write(b"\xff\x00ok")
    assert board.output() == "\\xff\x00ok"


def test_only_the_claim_that_is_asked_for_is_cancelled(board):
    board.ask_cancel(7, 1)
    assert (board.cancel_stage(7), board.cancel_stage(8)) == (1, 0)
    board.ask_cancel(8, 2)
    assert (board.cancel_stage(7), board.cancel_stage(8)) == (0, 2)


def test_a_closed_board_leaves_no_descriptor():
    board = Board.new()
    board.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(board.handle)

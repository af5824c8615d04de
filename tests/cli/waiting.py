"""Waiting for what a command or a node brings about, and what a benchmark may not leave."""

import os
import time


def wait_for(condition, seconds=30):
    """Return what a condition gives once it holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
    return found


def is_there(group):
    """Whether a process group has any process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def left_in(folder):
    """The folders that benchmarks have left."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".jobsched-bench")]

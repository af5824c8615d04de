"""Hooks of a project of these tests: a copy of this file is its hooks.py."""

import json
import os
import time
from pathlib import Path

from jobsched.event import plain

HERE = Path(__file__).parent
heard = (HERE / "heard").open("a", buffering=1)
(HERE / "hook-pids").open("a").write(f"{os.getpid()}\n")


def on_event(event):
    """Note an event; wait before the first one while the file `closed` is there."""
    while (HERE / "closed").exists():
        time.sleep(0.005)
    heard.write(json.dumps(plain(event)) + "\n")


def fail(event):
    raise ValueError(event.kind)


def stick(event):
    """Never return."""
    on_event(event)
    if event.kind == "node.draining":
        time.sleep(1000)

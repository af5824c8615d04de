"""The client of the comparison, a process of its own for each step: enqueues jobs by one library.

    python -m jobsched.bench.peers.client LIBRARY STEP FIRST COUNT RATE

It prints one JSON object: the seconds that a step took, or when each job was enqueued.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from types import ModuleType
from typing import Any

__all__ = ["main"]

_TOGETHER = 1000


def main() -> None:
    """Do the step that the arguments name."""
    name, step, *numbers = sys.argv[1:]
    library = importlib.import_module(f"jobsched.bench.peers.app_{name}")
    first, count, rate = int(numbers[0]), int(numbers[1]), float(numbers[2])
    steps = {"prepare": _call, "await_ready": _call, "release": _call}
    told = steps[step](library, step) if step in steps else _enqueue(library, step, first, count, rate)
    sys.stdout.write(json.dumps(told) + "\n")


def _call(library: ModuleType, step: str) -> dict[str, Any]:
    """Call a function that the library's module may have."""
    function = getattr(library, step, None)
    if function is not None:
        function()
    return {}


def _enqueue(library: ModuleType, step: str, first: int, count: int, rate: float) -> dict[str, Any]:
    numbers = range(first, first + count)
    if step == "paced":
        return {"called": _paced(library, numbers, rate)}
    if step == "many" and hasattr(library, "send_many"):
        return {"seconds": _many(library, numbers), "jobs": count}
    return {"seconds": _singly(library, numbers), "jobs": count - 1, "singly": True}


def _singly(library: ModuleType, numbers: range) -> float:
    """Enqueue one call at a time; return the seconds of all but the first, which connects."""
    library.send(numbers[0])
    began = time.perf_counter()
    for number in numbers[1:]:
        library.send(number)
    return time.perf_counter() - began


def _many(library: ModuleType, numbers: range) -> float:
    """Enqueue a thousand in a call; return the seconds."""
    began = time.perf_counter()
    for start in range(0, len(numbers), _TOGETHER):
        library.send_many(numbers[start : start + _TOGETHER])
    return time.perf_counter() - began


def _paced(library: ModuleType, numbers: range, rate: float) -> list[int]:
    """Enqueue one job every 1 / `rate` seconds; return when each call began, in monotonic ns."""
    called = []
    began = time.monotonic()
    for place, number in enumerate(numbers):
        time.sleep(max(0.0, began + place / rate - time.monotonic()))
        called.append(time.monotonic_ns())
        library.send(number)
    return called


if __name__ == "__main__":
    main()

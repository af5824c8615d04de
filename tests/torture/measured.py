"""What a node takes of its machine, and how long its clients wait."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from nodes import Node

from jobsched import Dispatcher
from jobsched.journal.file import journal_files

MOST_DISPATCHES = 2000


def private_bytes(pid: int) -> int:
    """Return the memory that is a process's own, swapped out or not."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap")) << 10


def descriptors(pid: int) -> int:
    """Return how many files a process has open; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def processor_s(node: Node) -> float:
    """Return the processor time that a node alone has used."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class GoodClient:
    """Dispatches one job after the other, and notes how long each took."""

    def __init__(self, dispatcher: Dispatcher, category: str, pace_s: float) -> None:
        self._dispatcher = dispatcher
        self._category = category
        self._pace_s = pace_s
        self.labels: list[str] = []
        self.took_s: list[float] = []

    def dispatch(self) -> None:
        """Dispatch one job, then rest a moment."""
        label = f"good-{len(self.labels)}"
        began = time.monotonic()
        self._dispatcher.dispatch("tasks:mark", self._category, args=(label,))
        self.took_s.append(time.monotonic() - began)
        self.labels.append(label)
        time.sleep(self._pace_s)

    def dispatch_until_it_has_a_journal(self, journals: Path) -> None:
        """Dispatch until there is a journal in a directory of them: the node has one file more open then."""
        for _ in range(MOST_DISPATCHES):
            if journal_files(journals):
                return
            self.dispatch()
        raise AssertionError(f"{MOST_DISPATCHES} dispatches, and no journal in {journals}")

    def take_latency(self) -> dict[str, float]:
        """Return median and worst since the last time, in ms."""
        taken, self.took_s = self.took_s, []
        return latency(taken)


def latency(took_s: Sequence[float]) -> dict[str, float]:
    """Return median and worst of some times, in ms."""
    ordered = sorted(took_s)
    return {
        "count": len(ordered),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "max_ms": round(1000 * ordered[-1], 2),
    }

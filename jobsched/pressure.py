"""Back-pressure: nothing new is started while the machine is busier than the configuration allows."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import psutil

from jobsched.config import PressureConfig

__all__ = ["Load", "Pressure", "read_load"]

_EVERY_S = 1.0
_IN_A_ROW = 3
_BAND = 10.0
"""Points of percent below the limit where it is calm again: between the two nothing changes. Half
of a limit below 20, where ten points less is what no machine goes below.
"""


class Load(msgspec.Struct, frozen=True):
    """How busy the machine is: percent of all CPUs in use, percent of memory not available."""

    cpu_percent: float
    memory_percent: float


def read_load() -> Load:
    """Return the load of the machine. Does not wait: the CPU's is the mean since the last call.

    The first call of a process has no earlier one to measure from and gives a CPU at 0.
    """
    memory = psutil.virtual_memory()
    return Load(psutil.cpu_percent(None), 100.0 * (1 - memory.available / memory.total))


class Pressure:
    """Says whether to hold back new starts. Belongs to the node's loop.

    Three samples in a row above a limit hold, three in a row ten points below it release: a single
    spike does neither, and a load at the limit does not make it flap.
    """

    def __init__(self, config: PressureConfig) -> None:
        limits = {"cpu": config.max_cpu, "memory": config.max_memory}
        self._gauges = [_Gauge(name, limit) for name, limit in limits.items() if limit is not None]
        self._due_at = -math.inf  # monotonic

    @property
    def is_held(self) -> bool:
        """Say whether new starts are held back."""
        return any(gauge.is_held for gauge in self._gauges)

    @property
    def reason(self) -> str:
        """Say why new starts are held back: ``"cpu at 97 %, above 95 %"``; empty when they are not."""
        return "; ".join(gauge.reason() for gauge in self._gauges if gauge.is_held)

    def timeout_s(self, now: float) -> float:
        """Return the seconds until the next sample; infinite when no limit is set."""
        return max(0.0, self._due_at - now) if self._gauges else math.inf

    def step(self, now: float, sample: Callable[[], Load] = read_load) -> bool:
        """Take a sample if a second has passed since the last one; return whether to hold.

        `now` is monotonic seconds. Without a limit no sample is ever taken.
        """
        if self._gauges and now >= self._due_at:
            self._due_at = now + _EVERY_S
            load = sample()
            for gauge in self._gauges:
                gauge.note(load.cpu_percent if gauge.name == "cpu" else load.memory_percent)
        return self.is_held


class _Gauge:
    """One limit, and how many samples in a row spoke for changing sides."""

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.is_held = False
        self._limit = limit
        self._calm = limit - min(_BAND, limit / 2)
        self._percent = 0.0
        self._against = 0

    def note(self, percent: float) -> None:
        """Take a sample into account."""
        self._percent = percent
        is_against = percent < self._calm if self.is_held else percent > self._limit
        self._against = self._against + 1 if is_against else 0
        if self._against >= _IN_A_ROW:
            self.is_held = not self.is_held
            self._against = 0

    def reason(self) -> str:
        """Say where the last sample stands to what holds or would release."""
        if self._percent > self._limit:
            return f"{self.name} at {self._percent:.0f} %, above {self._limit:g} %"
        return f"{self.name} at {self._percent:.0f} %, held until below {self._calm:g} %"

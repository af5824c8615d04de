"""What categories.toml says, as frozen values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from jobsched.errors import UnknownCategory
from jobsched.rate import Rate
from jobsched.schedule import Schedule

__all__ = [
    "BalancerConfig",
    "CategoryConfig",
    "Config",
    "DeclaredSchedule",
    "HttpConfig",
    "PressureConfig",
    "RetentionConfig",
    "StorePlace",
    "WeighBy",
]

WeighBy = Literal["backlog", "work"]
_DAY_S = 86_400.0


class CategoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One category: its weight, its limits, and what its jobs do unless their task says otherwise."""

    priority: float = 1
    """The weight of one waiting job against one of another category."""
    min_workers: int = 0
    """Workers that it keeps whatever its backlog."""
    max_workers: int | None = None
    """Workers that it never exceeds; None: the whole budget."""
    max_retries: int = 0
    timeout_s: float | None = None
    """Seconds that one run may take (`timeout` in the file); None: no limit."""
    kill_after_s: float | None = None
    """Seconds from the exception of a timeout or a cancellation to SIGKILL (`kill_after` in the
    file); None: half the timeout, at least 0.5 s and at most 10 s."""
    max_pending: int | None = None
    """Waiting jobs from which on a dispatch is refused; None: no limit."""
    rate: Rate | None = None
    """How often its jobs may start; None: no limit."""
    max_memory_bytes: int | None = None
    """Bytes of memory that a worker may hold (`max_memory` in the file); None: no limit."""
    max_jobs_per_worker: int | None = None
    """Jobs after which a worker is replaced; None: never."""
    max_worker_age_s: float | None = None
    """Seconds of life after which a worker is replaced (`max_worker_age` in the file); None: never."""


class BalancerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the worker budget is shared out."""

    every_s: float = 1.0
    """Seconds between two looks at the backlog (`every` in the file)."""
    weigh_by: WeighBy = "backlog"
    """Count waiting jobs (`backlog`), or their expected run time (`work`)."""
    damping: float = 0.5
    """A number of workers is kept while it is less than 0.5 + this from the ideal share."""


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long jobs that have ended are kept, by their state, in seconds; None: for ever."""

    completed_s: float | None = 7 * _DAY_S
    failed_s: float | None = 30 * _DAY_S
    cancelled_s: float | None = 7 * _DAY_S
    keep: int | None = 100_000
    """Jobs of each of these states that are kept at most, the newest; None: all."""


class PressureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From how many percent of use of the machine nothing new is started; None: never held."""

    max_cpu: float | None = None
    max_memory: float | None = None


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the built-in task `http` may do."""

    allow: tuple[str, ...] = ()
    """Addresses, networks and names of hosts that it may reach though they are not public."""


class DeclaredSchedule(msgspec.Struct, frozen=True):
    """A schedule that a file declares. An `Every` has no anchor yet: the store keeps the one it has.

    `is_active` None leaves it as it is in the store.
    """

    schedule: Schedule
    is_active: bool | None = None


class StorePlace(msgspec.Struct, frozen=True):
    """Where the jobs are kept.

    `path` is absolute: the store's folder, or for `memory` the run folder of the node's socket.
    """

    kind: Literal["lmdb", "memory"]
    path: Path


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that categories.toml says, checked."""

    path: Path | None
    """The file, absolute; None when it was read from a text."""
    directory: Path
    """The file's folder, absolute. Relative store paths start here."""
    store: StorePlace
    workers: int
    tasks: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    """Callables that are called with every event, like ``shop.hooks:on_event``."""
    grace_s: float = 30.0
    """Seconds that running jobs get to finish at a stop (`grace` in the file)."""
    quota_bytes: int = 4 << 30
    """Bytes of live data past which a dispatch is refused (`quota` in the file)."""
    balancer: BalancerConfig = BalancerConfig()
    retention: RetentionConfig = RetentionConfig()
    pressure: PressureConfig = PressureConfig()
    http: HttpConfig = HttpConfig()
    categories: dict[str, CategoryConfig]
    schedules: dict[str, DeclaredSchedule] = {}

    @property
    def source(self) -> str:
        """The name under which the schedules of the file are kept as its own."""
        return self.path.name if self.path else "categories.toml"

    def category(self, name: str) -> CategoryConfig:
        """Return a category's settings. Raises UnknownCategory with the nearest name."""
        try:
            return self.categories[name]
        except KeyError:
            raise UnknownCategory(name, self.categories) from None

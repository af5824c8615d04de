"""When a failed job is tried again: pure rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import random

__all__ = ["Backoff", "RetryRule", "rule_for"]


class Backoff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exponential back-off with full-range jitter, all in seconds.

    The wait before retry n (1 for the first) is ``base * factor ** (n - 1)``, at most ``cap``,
    spread by ``±jitter`` of itself so that jobs that failed together do not come back together.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.2

    def delay(self, retry: int, rng: random.Random) -> float:
        """Return the seconds to wait before the given retry (from 1)."""
        try:
            wait = min(self.cap, self.base * self.factor ** (retry - 1))
        except OverflowError:  # as 2.0 ** 2000, long after the cap is reached
            wait = self.cap
        return wait * (1 + self.jitter * rng.uniform(-1, 1))


class RetryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task does about one kind of error: how many retries, how far apart. What is None here
    is as for any other error; ``RetryRule(0)`` fails the job at once.
    """

    max_retries: int | None = None
    backoff: Backoff | None = None


def rule_for(error: type[BaseException], rules: Mapping[type[BaseException], RetryRule]) -> RetryRule:
    """Return the rule of the class that is nearest among an error's bases, an empty one without."""
    return next((rules[base] for base in error.__mro__ if base in rules), RetryRule())

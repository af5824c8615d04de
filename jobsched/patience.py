"""Patience with a store that fails: until when it is left alone, and when that has gone on too long."""

from __future__ import annotations

import logging

from jobsched.errors import NoRoom, NotCommitted

__all__ = ["Patience"]

log = logging.getLogger(__name__)

_WAITS_S = (0.05, 1.0)  # after the first failure, and at most
_ENOUGH_S = 60.0


class Patience:
    """A node's patience with its store. Times are monotonic; the store is left alone until `again_at`."""

    def __init__(self) -> None:
        self.again_at = 0.0
        self._failing_since: float | None = None

    def failed(self, error: NotCommitted, now: float) -> None:
        """Note that nothing was committed. A full disk is waited out; anything else for a minute, then the
        error is raised.
        """
        since = self._failing_since = self._failing_since or now
        if now - since > _ENOUGH_S and not isinstance(error, NoRoom):
            raise error
        log.error("the store failed; trying again", exc_info=error)
        self.again_at = now + min(_WAITS_S[1], max(_WAITS_S[0], now - since))

    def worked(self, now: float) -> None:
        """Note that a turn was committed."""
        if self._failing_since is not None:
            log.info("the store works again, after %.1f s", now - self._failing_since)
            self._failing_since = None

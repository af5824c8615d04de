"""What the testing kit raises when a test, or the code under test, would not come to an end."""

from __future__ import annotations

from jobsched.errors import JobschedError

__all__ = ["DispatchesForever", "NotHappened", "WouldWait"]


class DispatchesForever(JobschedError, AssertionError):
    """More jobs have run than a test may take; the message names what keeps dispatching."""


class WouldWait(JobschedError, AssertionError):
    """Waiting for a job would not end: nothing that is due now brings it to its end."""


class NotHappened(JobschedError, AssertionError):
    """What was waited for has not happened in the time given."""

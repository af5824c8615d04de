"""The testing kit: an app in the process of a test, with a clock that jumps, and faults on purpose."""

from jobsched.testing.app import LocalApp
from jobsched.testing.errors import DispatchesForever, NotHappened, WouldWait

__all__ = ["DispatchesForever", "LocalApp", "NotHappened", "WouldWait"]

pytest_plugins = ("jobsched.testing.plugin",)  # so that `pytest -p jobsched.testing` brings it

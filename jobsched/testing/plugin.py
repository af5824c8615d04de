"""The pytest plugin: an app for each test, its clock, and faults whose seed is shown on failure.

It loads nothing of jobsched beyond the package itself until a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobsched.testing.app import LocalApp
    from jobsched.testing.clock import JumpingClock
    from jobsched.testing.faults import Faults

__all__ = ["jobsched_app", "jobsched_clock", "jobsched_faults", "jobsched_seed"]

_INI = "jobsched_config"
_MARKER = "jobsched(config=…, categories=…, …): how jobsched_app is made; takes what LocalApp does"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini value."""
    group = parser.getgroup("jobsched")
    group.addoption(
        "--jobsched-seed", type=int, metavar="N", help="repeat faults: the seed of jobsched_faults"
    )
    parser.addini(_INI, "the categories.toml of jobsched_app, relative to the root directory of the tests")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def jobsched_app(request: pytest.FixtureRequest) -> Iterator[LocalApp]:
    """Give an app of jobsched in this process, in memory, to which `dispatch` and `task.dispatch` go.

    Made from `@pytest.mark.jobsched(...)`, which takes what `LocalApp` does, else from the categories.toml
    of the ini value `jobsched_config`, else from the one found as usual.
    """
    from jobsched.testing.app import LocalApp  # noqa: PLC0415 (only where it is used)

    with LocalApp(**_options(request)) as app, app.installed():
        yield app


@pytest.fixture
def jobsched_clock(jobsched_app: LocalApp) -> JumpingClock:
    """Give the clock of `jobsched_app`: `now`, `advance("1h")`, `set(moment)`."""
    return jobsched_app.clock


@pytest.fixture(scope="session")
def jobsched_seed(pytestconfig: pytest.Config) -> int:
    """Give the seed of this run's faults: `--jobsched-seed`, or drawn."""
    given: int | None = pytestconfig.getoption("--jobsched-seed")
    return int.from_bytes(os.urandom(4), "big") if given is None else given


@pytest.fixture
def jobsched_faults(
    request: pytest.FixtureRequest, jobsched_app: LocalApp, jobsched_seed: int
) -> Callable[..., Faults]:
    """Give `jobsched_app.faults` with a seed that is shown when the test fails:
    `jobsched_faults(store_full=0.2)`.
    """
    hint = f"seed {jobsched_seed}; --jobsched-seed={jobsched_seed} repeats these faults\n"
    request.node.add_report_section("setup", "jobsched_faults", hint)

    def begin(**faults: Any) -> Faults:
        return jobsched_app.faults(jobsched_seed, **faults)

    return begin


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the app is made from."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("jobsched"))):
        if marker.args:
            raise pytest.UsageError(f"mark.jobsched takes keyword arguments only, got {marker.args!r}")
        options.update(marker.kwargs)
    if "config" not in options and "categories" not in options and (found := request.config.getini(_INI)):
        options["config"] = found
    config = options.get("config")
    if isinstance(config, str | Path):
        options["config"] = request.config.rootpath / config
    return options

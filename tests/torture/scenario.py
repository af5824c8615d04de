"""What a torture scenario is, and what it is given.

A module `*_scenarios.py` of this folder registers its scenarios:

    @scenario("kill-clients", quick={"kills": 30}, full={"kills": 2000})
    def kill_clients(torture: Torture, kills: int) -> dict[str, Figure]:
        '''One line that says what is done, and what must hold.'''

The counts are whole numbers, all of which `--scale` multiplies; what is not to be scaled is a
constant of its module. A scenario returns the figures that it has measured, says by
`Torture.check` what did not hold, and may raise.
"""

import importlib
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path += [str(folder) for folder in (HERE, HERE.parent / "process") if str(folder) not in sys.path]

from nodes import Project  # noqa: E402 (where it lies has just been said)

Figure = int | float | str | bool | Mapping[str, Any]

_SHOWN_FAILURES = 20
_SHOWN_TEXT = 3000
_PROGRESS_S = 2.0
_LOADED = 1.5  # runnable processes a core
_PATIENCE = 3.0


class Scenario(NamedTuple):
    """A registered scenario, with its quick counts and its full ones."""

    name: str
    run: Callable[..., dict[str, Figure]]
    quick: Mapping[str, int]
    full: Mapping[str, int]

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().partition("\n")[0]

    def counts(self, *, full: bool, scale: float) -> dict[str, int]:
        chosen = self.full if full else self.quick
        return {name: max(1, round(count * scale)) for name, count in chosen.items()}


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, *, quick: Mapping[str, int], full: Mapping[str, int]
) -> Callable[[Callable[..., dict[str, Figure]]], Callable[..., dict[str, Figure]]]:
    """Register a function as a scenario under a name."""

    def register(function: Callable[..., dict[str, Figure]]) -> Callable[..., dict[str, Figure]]:
        assert quick.keys() == full.keys(), f"{name}: quick and full need the same counts"
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        SCENARIOS[name] = Scenario(name, function, quick, full)
        return function

    return register


def discover() -> dict[str, Scenario]:
    """Import every `*_scenarios.py` of this folder; return the scenarios by name."""
    for module in sorted(HERE.glob("*_scenarios.py")):
        importlib.import_module(module.stem)
    return SCENARIOS


class Torture:
    """What one run of a scenario has: chance that can be repeated, a folder, and a list of failures."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.folder = folder
        self.failures: list[str] = []
        self._projects: list[Project] = []
        self._said_at = time.monotonic()
        self.load = load_per_core()

    def project(self, name: str = "project") -> Project:
        """Make a project in a folder of its own. All its processes are ended with the scenario.

        Modules `*_tasks.py` of this folder lie beside its tasks.py: list them in
        `Project.configure(…, tasks=["tasks", "kill_tasks"])`.
        """
        folder = self.folder / name
        folder.mkdir()
        made = Project(folder)
        for module in HERE.glob("*_tasks.py"):
            shutil.copy(module, folder)
        self._projects.append(made)
        return made

    def progress(self, text: str) -> None:
        """Say on stderr how far it has come, every two seconds at most."""
        if time.monotonic() - self._said_at >= _PROGRESS_S:
            self._said_at = time.monotonic()
            self.load = max(self.load, load_per_core())
            print(text, file=sys.stderr, flush=True)

    def check(self, condition: object, text: str) -> bool:
        """Note a failure unless the condition holds; return whether it does."""
        if not condition:
            self.failures.append(text)
        return bool(condition)

    def limit_s(self, promised_s: float) -> float:
        """Return a promised limit of time. A machine that others load gets three times as long: then the
        limit says more about them.
        """
        self.load = max(self.load, load_per_core())
        return promised_s * (_PATIENCE if self.load > _LOADED else 1)

    def check_in_time(self, seconds: float, promised_s: float, what: str) -> bool:
        """Note a failure if something took too long."""
        limit_s = self.limit_s(promised_s)
        return self.check(seconds <= limit_s, f"{what} took {seconds:.2f} s, {limit_s:g} s at most")

    def check_none(self, **found: Collection[Any]) -> dict[str, Figure]:
        """Note a failure for each of these that is not empty; return their sizes as figures."""
        for name, things in found.items():
            self.check(not things, f"{len(things)} {name.replace('_', ' ')}: {list(things)[:5]}")
        return {name: len(things) for name, things in found.items()}

    def close(self) -> None:
        for project in self._projects:
            project.close()


def run_scenario(
    chosen: Scenario, *, seed: int, full: bool = False, scale: float = 1.0, keep: bool = False
) -> dict[str, Any]:
    """Run a scenario in a fresh folder, which stays if it fails; return its line of results."""
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{chosen.name}-"))
    torture = Torture(seed, folder)
    began = time.monotonic()
    figures: dict[str, Figure] = {}
    try:
        figures = chosen.run(torture, **chosen.counts(full=full, scale=scale))
    except Exception as error:  # noqa: BLE001 (whatever went wrong is the scenario's failure)
        torture.failures.append(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    finally:
        torture.close()
    is_ok = not torture.failures
    if is_ok and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    line = {
        "scenario": chosen.name,
        "seed": seed,
        "ok": is_ok,
        "seconds": round(time.monotonic() - began, 1),
        "load_per_core": round(torture.load, 1),
        **figures,
    }
    if keep or not is_ok:
        line["folder"] = str(folder)
    if not is_ok:
        line["failed_checks"] = len(torture.failures)
        line["failures"] = [text[:_SHOWN_TEXT] for text in torture.failures[:_SHOWN_FAILURES]]
    return line


def load_per_core() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return median, 99th percentile and the largest of some seconds."""
    ordered = sorted(values) or [0.0]
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 3),
        "max": round(ordered[-1], 3),
    }

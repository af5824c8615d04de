"""A node on a small disk that is full again and again.

`python disk_full_work.py FOLDER MIB CYCLES SEED FILLED_BY`, in a mount namespace of its own, where it
mounts the disk. FILLED_BY is `store` or `others`. Prints one JSON object: `figures` and `wrong`.
"""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from invariants import problems, read_store
from nodes import Node, Project, eventually
from scenario import HERE

from jobsched import Dispatcher
from jobsched.errors import JobschedError, StoreFull

_BATCH = 25
_DELETED = 500  # in one request
_PAYLOAD = 1500
_MOST_BATCHES = 2000
_BLOCK = 4096
_DRAIN_S = 60.0
PRUNE_WORDS: tuple[str, ...] = ("--older-than", "0s")
_BEFORE = 40  # jobs that are there before another file fills the disk


class Cycles:
    """A project on the disk, its one node, and what was accepted."""

    def __init__(self, disk: Path, seed: int) -> None:
        self._disk = disk
        self._rng = random.Random(seed)
        (disk / "project").mkdir()
        self.project = Project(disk / "project")
        self.project.configure({"mail": {}, "reports": {}}, tasks=["disk_full_tasks"])
        shutil.copy(HERE / "disk_full_tasks.py", self.project.folder)
        self._node: Node = self.project.start()
        self._dispatcher: Dispatcher = self.project.dispatcher()
        self.accepted: list[str] = []
        self._finished: set[str] = set()
        self.wrong: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()

    def run(self, cycles: int, filled_by: str) -> None:
        """Fill the disk and make room, as often as asked; each cycle goes on from the last."""
        cycle = self._fill_store if filled_by == "store" else self._fill_by_others
        for _ in range(cycles):
            cycle()
            self.figures["cycles"] += 1
            if not self._node.is_alive:
                self._note(f"the node ended with {self._node.wait(5)}: {self._node.end_of_log[-700:]}")
                return
        for text in problems(read_store(self.project.store_path))[:5]:
            self._note(text)
        self._node.terminate()
        code = self._node.wait(30)
        self._check(code == 0, f"the node ended with {code}: {self._node.end_of_log[-500:]}")

    def _fill_store(self) -> None:
        """Dispatch until refused; all finish; what has ended is pruned; there is room again."""
        self._pause(is_paused=True)
        self._dispatch_until_refused()
        self._pause(is_paused=False)
        self._drain("with a store that is full")
        self._prune()
        self._check_room("after the ended jobs were pruned")
        self._drain("after there was room again")

    def _fill_by_others(self) -> None:
        """Have another file take the rest of the disk; all finish; without it there is room again."""
        self._pause(is_paused=True)
        self._dispatch(_BEFORE)
        with self._hog():
            self._dispatch_until_refused()
            self._pause(is_paused=False)
            self._drain("while another file fills the disk")
        self._check_room("after the other file was removed")
        self._drain("after the other file was removed")
        self._prune()

    def _dispatch_until_refused(self) -> None:
        for _ in range(_MOST_BATCHES):
            try:
                self._dispatch(_BATCH)
            except StoreFull:
                self.figures["refused"] += 1
                return
            except Exception as error:  # noqa: BLE001 (what it is, is noted)
                self._note(f"a dispatch on a full disk raised {type(error).__name__}: {error}")
                return
        self._note(f"{_MOST_BATCHES * _BATCH} jobs were accepted, none refused")

    def _dispatch(self, count: int) -> None:
        prepared = [
            self._dispatcher.prepare(
                "disk_full_tasks:swallow",
                self._rng.choice(("mail", "reports")),
                args=(self._rng.randbytes(self._rng.randrange(_PAYLOAD)),),
            )
            for _ in range(count)
        ]
        self.accepted += [job.id for job in self._dispatcher.dispatch_many(prepared)]
        self.figures["accepted"] += count

    def _drain(self, when: str) -> None:
        try:
            eventually(lambda: self.project.is_settled() or not self._node.is_alive, _DRAIN_S)
        except AssertionError:
            self._note(f"jobs did not finish {when}")
        states = Counter(self.project.states(self.accepted))
        self._check(states.keys() <= {"completed"}, f"accepted jobs are {dict(states)} {when}")
        self._finished |= set(self.accepted) if states.keys() == {"completed"} else set()
        self.figures["finished"] = len(self._finished)

    def _check_room(self, when: str) -> None:
        try:
            self._dispatch(_BATCH)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            self._note(f"no room {when}: {type(error).__name__}: {error}")

    def _pause(self, *, is_paused: bool) -> None:
        change = self._dispatcher.pause if is_paused else self._dispatcher.resume
        for category in ("mail", "reports"):
            try:
                change(category)
            except Exception as error:  # noqa: BLE001 (what it is, is noted)
                self._note(f"a {change.__name__} on a full disk raised {type(error).__name__}: {error}")

    def _prune(self) -> None:
        """Delete what has ended: by the command, and what is too new for that by asking the node."""
        command = [sys.executable, "-m", "jobsched", "-c", str(self.project.config), "prune", *PRUNE_WORDS]
        done = subprocess.run(
            command, env=self.project.environment, capture_output=True, text=True, check=False
        )
        self._check(done.returncode == 0, f"prune ended with {done.returncode}: {done.stderr[-500:]}")
        ended, self.accepted = self.accepted, []
        if not hasattr(self._dispatcher, "delete") or not self._node.is_alive:
            return
        try:
            for at in range(0, len(ended), _DELETED):
                self._dispatcher.delete(ended[at : at + _DELETED])
        except JobschedError as error:
            self._note(f"deleting raised {type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _hog(self) -> Iterator[None]:
        """Fill the rest of the disk with another file, and remove it."""
        path = self._disk / "hog"
        with path.open("wb", buffering=0) as hog, contextlib.suppress(OSError):
            while True:
                hog.write(bytes(_BLOCK))
        try:
            yield
        finally:
            path.unlink()

    def _check(self, condition: object, text: str) -> None:
        if not condition:
            self._note(text)

    def _note(self, text: str) -> None:
        self.wrong[text] += 1


def work(kind: type[Cycles], folder: str, size_mib: str, cycles: str, seed: str, *, filled_by: str) -> None:
    """Mount the disk, run the cycles, print what they have found."""
    disk = Path(folder) / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "none", str(disk)], check=True)
    began = time.monotonic()
    run = kind(disk, int(seed))
    try:
        run.run(int(cycles), filled_by)
    except Exception as error:  # noqa: BLE001 (it is the outcome)
        run.wrong[f"{type(error).__name__}: {error}"] += 1
    finally:
        run.project.close()
    figures = {**run.figures, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({"figures": figures, "wrong": run.wrong}))


if __name__ == "__main__":
    work(Cycles, *sys.argv[1:5], filled_by=sys.argv[5])

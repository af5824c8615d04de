"""Writes and flushes that fail: nothing is acknowledged that is not on disk, and life goes on."""

import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import preload
from faults import Fault, Faults, all_faults
from invariants import problems, read_store
from nodes import Node, Project, eventually
from scenario import HERE, Figure, Torture, scenario

from jobsched import Dispatcher
from jobsched.errors import JobschedError, StoreError, Unavailable
from jobsched.job_id import ID_BYTES
from jobsched.node_connection import NodeConnection
from jobsched.store.base import Request

STORE_FAULT = 74
"""The exit code of a node that cannot go on with its store."""

_PROCESSES = 2
_CLIENTS = 2
_MOST_STARTS = 12
_MOST_PASSES = {1: 60, 2: 6, 4: 6}  # by operation: a turn has many data writes, one flush, one meta write
_FAULT_S = 20.0
_PAUSE_S = 0.01
_TRIALS_S = 1800.0


@scenario("write-errors", quick={"faults": 54, "node_faults": 1}, full={"faults": 3600, "node_faults": 60})
def write_errors(torture: Torture, faults: int, node_faults: int) -> dict[str, Figure]:
    """Fail writes and flushes: no false acknowledgement, and the store serves again."""
    missing = preload.why_not()
    if missing:
        return {"skipped": missing}
    library = preload.compiled("fail_writes", torture.folder)
    return try_stores(torture, library, faults) | try_node(torture, library, node_faults)


# A store, and a client without a node: in processes of their own.


def try_stores(torture: Torture, library: Path, faults: int) -> dict[str, Figure]:
    """Try faults on stores and on clients without a node; return what came of them."""
    found: Counter[str] = Counter()
    raised: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    with preload.memory_folder(torture.folder) as memory:
        for line in run_trials(torture, library, memory, faults):
            found["trials"] += 1
            found["faults_hit"] += line["failed"] > 0
            found["unopenable_after_failed_creation"] += line["unborn"]
            found["false_acknowledgements"] += any("acknowledged" in text for text in line["wrong"])
            found["stuck_clients"] += any("stuck" in text for text in line["wrong"])
            raised.update(line["raised"])
            for text in line["wrong"]:
                wrong.setdefault(f"{line['way']}: {without_places(text, memory)}", []).append(line["fault"])
    for text, names in wrong.items():
        torture.check(False, f"{text} [{len(names)} times, {names[0]} for one]")
    torture.check(found["faults_hit"] >= found["trials"] // 2, f"few faults were hit: {found}")
    counted = ("faults_hit", "false_acknowledgements", "stuck_clients", "unopenable_after_failed_creation")
    return {"trials": found["trials"], **{name: found[name] for name in counted}, "raised": dict(raised)}


def without_places(text: str, folder: Path) -> str:
    """Return a text without the paths in it, so that what is alike can be counted."""
    return re.sub(re.escape(str(folder)) + r"/\S*?([:'.]* |$|')", r"…\1", text)


def run_trials(torture: Torture, library: Path, memory: Path, faults: int) -> list[Any]:
    """Run the trials in several processes; return what they say of each."""
    lines: list[Any] = []
    with ExitStack() as stack:
        running: list[subprocess.Popen[bytes]] = []
        for part in range(_PROCESSES):
            folder = memory / f"trials-{part}"
            folder.mkdir(mode=0o700)
            control = memory / f"faults-{part}"
            Faults(control).close()
            words = map(str, (folder, torture.seed, faults, part, _PROCESSES))
            process = subprocess.Popen(
                [sys.executable, str(HERE / "write_error_work.py"), *words],
                env={**os.environ, **preload.environment(library, TORTURE_FAULTS=control)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            output, said = process.communicate(timeout=_TRIALS_S)
            torture.check(process.returncode == 0, f"the trials ended: {said.decode()[-2000:]}")
            lines += map(json.loads, output.splitlines())
    return lines


# A node and its clients.


def try_node(torture: Torture, library: Path, count: int) -> dict[str, Figure]:
    """Fail the writes of a node again and again, and restart it when it ends."""
    project = torture.project("node")
    chosen = [torture.rng.choice(all_faults(0)) for _ in range(count)]
    with Faults(torture.folder / "faults-node") as faults:
        project.environment |= preload.environment(library, TORTURE_FAULTS=faults.path)
        site = _Site(torture, project, faults)
        for place, fault in enumerate(chosen):
            torture.progress(f"node: fault {place + 1} of {count}, {site.deaths} deaths")
            passes = torture.rng.randrange(_MOST_PASSES[fault.operation])
            site.strike(fault._replace(passes=passes, name=f"{fault.name[:-1]}{passes}"))
        site.finish()
    return {
        "node_faults": count,
        "node_deaths": site.deaths,
        "accepted": len(site.accepted),
        "refused_or_unknown": site.errors.total(),
    }


class _Site:
    """A project whose node runs under the injector, and what its clients were told."""

    def __init__(self, torture: Torture, project: Project, faults: Faults) -> None:
        self._torture = torture
        self._project = project
        self._faults = faults
        self._node = project.start()
        self._labels = 0
        self._lock = threading.Lock()  # guards the three below: clients are threads
        self.accepted: dict[str, str] = {}
        self.errors: Counter[str] = Counter()
        self.deaths = 0

    def strike(self, fault: Fault) -> None:
        """Have a fault strike while clients dispatch; have a node serve again."""
        self._faults.arm(fault)
        is_over = threading.Event()
        dispatcher = self._project.dispatcher()
        seeds = [self._torture.rng.randrange(1 << 30) for _ in range(_CLIENTS)]
        clients = [
            threading.Thread(target=self._be_client, args=(dispatcher, random.Random(seed), is_over))
            for seed in seeds
        ]
        for client in clients:
            client.start()
        try:
            self._serve(fault)
        finally:
            is_over.set()
            for client in clients:
                client.join(60)
            dispatcher.close()
        self._torture.check(self._is_serving(), f"{fault.name}: it does not serve afterwards")

    def _serve(self, fault: Fault) -> None:
        """Start the node again as often as it ends, until the fault is over."""
        starts = 0
        while True:
            eventually(lambda: not self._faults.is_pending or not self._node.is_alive, _FAULT_S)
            if self._node.is_alive and eventually(self._is_settled, _FAULT_S) == "serves":
                self._faults.disarm()
                return
            self._note_death(fault)
            starts += 1
            if starts == _MOST_STARTS:
                self._faults.disarm()
            assert starts <= _MOST_STARTS, f"{fault.name}: no start of {starts} has lasted"
            self._node = self._started()

    def _is_settled(self) -> str:
        """Say whether the node serves after the fault or has died of it; nothing before it is clear."""
        if not self._node.is_alive:
            return "is dead"
        try:  # the node itself: a dispatcher would do without one
            connection = NodeConnection(self._project.store_path)
            connection.exchange([Request(cancel=[bytes(ID_BYTES)])])
            connection.close()
        except (OSError, JobschedError):
            return ""
        return "serves"

    def _is_serving(self) -> bool:
        dispatcher = self._project.dispatcher()
        before = len(self.accepted)
        self._dispatch(dispatcher, random.Random(0))
        return len(self.accepted) > before

    def _note_death(self, fault: Fault) -> None:
        self.deaths += 1
        code = self._node.wait(10)
        self._torture.check(
            code == STORE_FAULT,
            f"{fault.name}: the node ended with {code}, not {STORE_FAULT}: {self._node.end_of_log[-600:]}",
        )

    def _started(self) -> Node:
        node = self._project.launch()
        eventually(lambda: self._project.answers() or not node.is_alive, 30)
        return node

    def _be_client(self, dispatcher: Dispatcher, rng: random.Random, is_over: threading.Event) -> None:
        while not is_over.is_set():
            self._dispatch(dispatcher, rng)
            is_over.wait(_PAUSE_S)

    def _dispatch(self, dispatcher: Dispatcher, rng: random.Random) -> None:
        with self._lock:
            self._labels += 1
            label = f"{self._labels:06}"
        category = rng.choice(("mail", "reports"))
        try:
            job = dispatcher.dispatch("tasks:mark", category, args=(label,))
        except JobschedError as error:
            with self._lock:
                self.errors[type(error).__name__] += 1
            if not isinstance(error, StoreError | Unavailable):
                self._torture.check(False, f"a client was told {type(error).__name__}: {error}")
        else:
            with self._lock:
                self.accepted[label] = job.id

    def finish(self) -> None:
        """Let the node do all that is left; compare with what was accepted."""
        eventually(self._project.is_settled, 60)
        self._node.terminate()
        self._torture.check(self._node.wait() == 0, f"the last node failed: {self._node.end_of_log}")
        states = Counter(self._project.states(list(self.accepted.values())))
        self._torture.check(states == {"completed": len(self.accepted)}, f"accepted jobs are {dict(states)}")
        ran = {run.label for run in self._project.runs() if run.end}
        self._torture.check(self.accepted.keys() <= ran, "a job is completed and has not run")
        for text in problems(read_store(self._project.store_path)):
            self._torture.check(False, text)

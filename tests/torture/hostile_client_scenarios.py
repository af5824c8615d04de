"""Bad clients: they send nonsense, too much or nothing, or stop. A good one is not to notice."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bad_clients import BIG_JOB
from measured import GoodClient, descriptors, private_bytes
from nodes import Node, Project, eventually
from scenario import Figure, Torture, scenario
from structure import _pages as page_problems

from jobsched import Unavailable
from jobsched.job_id import format_id
from jobsched.listener import MAX_CLIENTS
from jobsched.store.place import JOURNALS

BAD_CLIENTS = Path(__file__).with_name("bad_clients.py")
QUIET = 100  # dispatches
PACE_S = 0.002
WORST_S = 5.0  # no good client waits longer, whatever others do, on a busy machine
GROWTH_BYTES = 16 << 20  # of the node, over all that it has been through
PATIENCE_S = 30.0  # of a client

WRITER = """
import os, signal, sys
from jobsched import Dispatcher
from jobsched.store.lmdb_turn import LmdbTurn

def stop_and_apply(self, turn, apply=LmdbTurn.apply):
    os.kill(os.getpid(), signal.SIGSTOP)
    return apply(self, turn)

LmdbTurn.apply = stop_and_apply
Dispatcher.from_config(sys.argv[1]).dispatch("tasks:mark", "mail", args=("written",))
"""


class BadClients:
    """Bad clients as processes, and the good one that they are to be no trouble to."""

    def __init__(self, torture: Torture, project: Project, good: GoodClient) -> None:
        self._torture = torture
        self._project = project
        self._good = good
        self._staying: list[subprocess.Popen[str]] = []
        self.figures: dict[str, Any] = {}
        self.latency: dict[str, Any] = {}

    def suffer(self, kind: str, count: int) -> None:
        """Have a kind of bad client do its worst while the good one goes on."""
        self._torture.progress(f"hostile-clients: {kind}")
        with self._start(kind, count) as process:
            while process.poll() is None:
                self._good.dispatch()
            self._note(kind, process.stdout.read())
        self._torture.check(process.returncode == 0, f"{kind} ended with code {process.returncode}")

    def bear(self, kind: str, count: int) -> None:
        """Have a kind of bad client come and stay."""
        self._torture.progress(f"hostile-clients: {kind}")
        process = self._start(kind, count)
        self._staying.append(process)
        with ThreadPoolExecutor(1) as thread:
            ready = thread.submit(process.stdout.readline)
            while not ready.done():
                self._good.dispatch()
        for _ in range(50):
            self._good.dispatch()
        self._note(kind, ready.result())

    def _start(self, kind: str, count: int) -> subprocess.Popen[str]:
        seed = self._torture.rng.randrange(1 << 31)
        return subprocess.Popen(
            [sys.executable, BAD_CLIENTS, kind, self._project.store_path, str(seed), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._project.environment,
        )

    def _note(self, kind: str, said: str) -> None:
        self.figures[kind] = json.loads(said or "{}")
        self.latency[kind] = self._good.take_latency()
        worst = self.latency[kind]["max_ms"]
        self._torture.check(worst < 1000 * WORST_S, f"a good client waited {worst} ms beside {kind}")

    def leave(self) -> None:
        """End those that have stayed."""
        for process in self._staying:
            process.kill()
            process.communicate()
        self._staying.clear()


@scenario(
    "hostile-clients",
    quick={"nonsense": 5, "fuzzed": 500, "idle": 100, "unfinished": 1, "stopped_s": 1},
    full={"nonsense": 2000, "fuzzed": 50_000, "idle": 5000, "unfinished": 8, "stopped_s": 32},
)
def hostile_clients(  # noqa: PLR0917 (one for each count)
    torture: Torture, nonsense: int, fuzzed: int, idle: int, unfinished: int, stopped_s: int
) -> dict[str, Figure]:
    """Clients that stop, crowd, send nonsense or never read: a good one goes on as if they were not."""
    project = torture.project()
    project.configure({"mail": {}, "shelf": {}})
    node = project.start()
    dispatcher = project.dispatcher()
    dispatcher.pause("shelf")
    dispatcher.dispatch("tasks:mark", "shelf", args=("x" * 900_000,), id=format_id(BIG_JOB))
    good = GoodClient(dispatcher, "mail", PACE_S)
    bad = BadClients(torture, project, good)
    with contextlib.ExitStack() as stack:
        stack.callback(bad.leave)
        for _ in range(2):  # what a node needs once is not to be counted
            bad.suffer("garbage", 5)
        for _ in range(QUIET):
            good.dispatch()
        good.dispatch_until_it_has_a_journal(project.store_path / JOURNALS)
        bad.latency["quiet"] = good.take_latency()
        before = private_bytes(node.pid), descriptors(node.pid)
        all_but_the_idle(bad, nonsense, fuzzed, unfinished, project)
        bad.bear("idle", idle)
        crowded = descriptors(node.pid)
        torture.check(
            min(idle, MAX_CLIENTS) < crowded < MAX_CLIENTS + 100, f"{crowded} descriptors for {idle} clients"
        )
        bad.suffer("garbage", nonsense)
        torture.check(node.is_alive, f"the node is gone: {node.end_of_log}")
    eventually(lambda: descriptors(node.pid) <= before[1], 10)
    grown = private_bytes(node.pid) - before[0]
    torture.check(grown < GROWTH_BYTES, f"the node has grown by {grown >> 10} KiB")
    torture.check(not node.says("Traceback"), f"the node has met what it did not expect: {node.end_of_log}")
    stop_and_judge(torture, project, node, good)
    figures = {
        "node_grew_kib": grown >> 10,
        "descriptors": before[1],
        "descriptors_crowded": crowded,
        "latency": bad.latency,
    } | bad.figures
    return figures | stopped_in_a_commit(torture, torture.project("start"), stopped_s)


def all_but_the_idle(bad: BadClients, nonsense: int, fuzzed: int, unfinished: int, project: Project) -> None:
    bad.bear("watching", 100)
    bad.bear("halted", 5)
    bad.bear("half", 20)
    bad.suffer("garbage", nonsense)
    bad.suffer("huge", nonsense)
    bad.suffer("version", nonsense)
    bad.suffer("fuzz", fuzzed)
    bad.suffer("deaf", 3)
    bad.suffer("unfinished", unfinished)
    let_strangers_in(project)
    bad.suffer("stranger", nonsense)


def let_strangers_in(project: Project) -> None:
    """Open the way to the socket, as a careless chmod would: the node still looks at the uid."""
    project.store_path.chmod(0o711)
    (project.store_path / "node.sock").chmod(0o666)


def stop_and_judge(torture: Torture, project: Project, node: Node, good: GoodClient) -> None:
    """Have all good jobs done, and see that no other has run."""
    eventually(lambda: len(project.runs()) >= len(good.labels), 60)
    node.terminate()
    torture.check(node.wait(30) == 0, f"the node did not stop: {node.end_of_log}")
    ran = Counter(run.label for run in project.runs())
    torture.check(ran == Counter(good.labels), "other jobs have run than those of the good client")
    torture.check_none(page_problems=page_problems(project.store_path))


def stopped_in_a_commit(torture: Torture, project: Project, stopped_s: int) -> dict[str, Figure]:
    """Start a node while a client is stopped in its own commit; others come meanwhile."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(project.config)], env=project.environment, cwd=project.folder
    )
    try:
        while "T" not in Path(f"/proc/{writer.pid}/stat").read_text().rpartition(")")[2]:
            time.sleep(0.01)
        node = project.launch()
        eventually(lambda: node.says(f"pid {writer.pid} ("), 20)
        with ThreadPoolExecutor(2) as threads:
            early = threads.submit(project.dispatch_marks, "mail", ["early"])
            time.sleep(stopped_s)
            late = threads.submit(project.dispatch_marks, "mail", ["late"])
            writer.send_signal(signal.SIGCONT)
            told = [outcome(early), outcome(late)]
        torture.check(told[1] == "completed", f"a client that came late was told {told[1]}")
        expected = "Unavailable" if stopped_s > PATIENCE_S else "completed"
        torture.check(told[0] == expected, f"a client that came early was told {told[0]}, not {expected}")
        eventually(lambda: {"written", "late"} <= project.runs_by_label().keys(), 20)
        named = node.log.read_text().count(f"pid {writer.pid} (")
        torture.check(named >= 1 + stopped_s // 11, f"the stopped client was named {named} times")
    finally:
        writer.kill()
        writer.wait()
    return {"stopped_in_a_commit": {"early": told[0], "late": told[1], "named": named}}


def outcome(dispatched: Future[list[str]]) -> str:
    try:
        return "completed" if dispatched.result(60) else "nothing"
    except Unavailable:
        return "Unavailable"

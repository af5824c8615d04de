"""What the tests of this folder share: a project, nodes on it as processes, and what they did."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import jobsched
from jobsched import Dispatcher
from jobsched.fence import MARKER, marked
from jobsched.gateway import Gateway
from jobsched.job import State
from jobsched.job_id import parse_id
from jobsched.node_connection import NodeConnection
from jobsched.store.base import JobStore, Query, StoredJob
from jobsched.store.lmdb import open_store
from jobsched.store.lmdb_space import DEFAULT_QUOTA

SCALE = float(os.environ.get("JOBSCHED_TEST_SCALE", "1"))
"""Multiplies the numbers of jobs and of kills, for larger runs."""

POLL_S = 0.005


def scaled(count: int) -> int:
    return max(1, int(count * SCALE))


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what a condition gives once it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {condition}"
        time.sleep(POLL_S)


class Run(NamedTuple):
    """One run of a job, as the task itself has noted it; `end` is None when it was cut off."""

    label: str
    pid: int
    attempt: int
    start: int
    end: int | None


class Node:
    """A `jobsched run` of its own process."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / f"node-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill it by force, and it alone."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 60.0) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait(seconds)

    def says(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    @property
    def end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it like a debugger does; what happens meanwhile arrives all at once."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def preloader(self) -> psutil.Process | None:
        """Return its preloader, None while there is none."""
        try:
            children = psutil.Process(self.pid).children()
            return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)
        except psutil.Error:
            return None

    def workers(self) -> list[int]:
        """Return the pids of its workers."""
        preloader = self.preloader()
        try:
            return [child.pid for child in preloader.children()] if preloader else []
        except psutil.Error:
            return []


class Project:
    """A folder with a categories.toml and a tasks module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store_path = folder / ".jobsched"
        self.nodes: list[Node] = []
        self.dispatchers: list[Dispatcher] = []
        self.environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(jobsched.__file__).parents[1]),
        }
        shutil.copy(Path(__file__).with_name("recorded_tasks.py"), folder / "tasks.py")
        self.configure({"mail": {}, "reports": {}})

    def bring(self, *modules: str) -> None:
        """Put modules of tasks from this folder beside the tasks.py; they import `recorded_tasks`."""
        for module in ("recorded_tasks", *modules):
            shutil.copy(Path(__file__).with_name(f"{module}.py"), self.folder)

    @property
    def config(self) -> Path:
        return self.folder / "categories.toml"

    def configure(
        self,
        categories: Mapping[str, Mapping[str, Any]],
        workers: int = 2,
        balancer_every: str = "100ms",
        **settings: Any,
    ) -> None:
        """Write the categories.toml."""
        top = {"store": f"lmdb:{self.store_path}", "workers": workers, "tasks": ["tasks"]} | settings
        tables: dict[str, Mapping[str, Any]] = {"balancer": {"every": balancer_every}}
        tables |= {f"categories.{name}": settings for name, settings in categories.items()}
        lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self.config.write_text("\n".join(lines))

    # Nodes.

    def launch(self, *words: str) -> Node:
        """Start a node and do not wait for it."""
        command = [sys.executable, "-m", "jobsched", "-c", str(self.config), "run", *words]
        node = Node(command, self.folder, self.environment)
        self.nodes.append(node)
        return node

    def start(self, *words: str) -> Node:
        """Start a node; return when it answers."""
        node = self.launch(*words)
        eventually(lambda: self.answers() or not node.is_alive, 30)
        assert node.is_alive, node.end_of_log
        return node

    def run_until_idle(self, seconds: float = 60.0) -> int:
        """Have a node do all there is to do; return its exit code."""
        return self.launch("--until-idle").wait(seconds)

    def limit_s(self, promised_s: float) -> float:
        """Return a promised limit of a stop, or four stops of a node with nothing to do where these take
        longer: on a slow machine, or one that others load.
        """
        node = self.start()
        eventually(node.workers)
        began = time.monotonic()
        node.terminate()
        assert node.wait() == 0, node.end_of_log
        return max(promised_s, 4 * (time.monotonic() - began))

    def answers(self) -> bool:
        """Say whether a node answers on the store."""
        try:
            NodeConnection(self.store_path).close()
        except OSError:
            return False
        return True

    def left_behind(self) -> list[int]:
        """Return the processes that come from this store's nodes, the nodes themselves apart."""
        mark = f"{MARKER}={marked(self.store_path)}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if mark in environment:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End every process that has come from here, and hang up."""
        for dispatcher in self.dispatchers:
            dispatcher.close()
        for node in self.nodes:
            node.kill()
        for pid in self.left_behind():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    # Jobs.

    def dispatcher(self, config: Path | None = None) -> Dispatcher:
        """Return a dispatcher of this project, or of another file beside its own; closed with it."""
        dispatcher = Dispatcher.from_config(config or self.config)
        self.dispatchers.append(dispatcher)
        return dispatcher

    def dispatch_marks(self, category: str, labels: Sequence[str], seconds: float = 0.0) -> list[str]:
        """Dispatch a `mark` for each label, in order and in one commit; return the jobs' ids."""
        dispatcher = self.dispatcher()
        prepared = [dispatcher.prepare("tasks:mark", category, args=(label, seconds)) for label in labels]
        return [job.id for job in dispatcher.dispatch_many(prepared)]

    @contextmanager
    def store(self) -> Iterator[JobStore]:
        """Open the store for reading, with all in it that was accepted."""
        with closing(Gateway(self.store_path, durable=True, quota_bytes=DEFAULT_QUOTA)) as gateway:
            gateway.settle()
        store = open_store(self.store_path)
        try:
            yield store
        finally:
            store.close()

    def states(self, ids: Sequence[str]) -> list[str]:
        """Return the states of jobs, 'missing' for those that are not in the store."""
        with self.store() as store:
            found = [store.get(parse_id(job_id)) for job_id in ids]
        return [str(job.status.state) if job else "missing" for job in found]

    def stored(self, job_id: str) -> StoredJob:
        """Return a job as it is in the store, with its attempts."""
        with self.store() as store:
            job = store.get(parse_id(job_id))
        assert job is not None
        return job

    def status(self, job_id: str) -> Any:
        return self.stored(job_id).status

    def cause(self, job_id: str) -> str:
        """Return why a job did not complete, in one line; empty if nothing says so."""
        error = self.stored(job_id).error
        return error.cause if error else ""

    def count(self, state: State) -> int:
        """Return how many jobs of all categories are in a state."""
        with self.store() as store:
            return sum(stats[state] for stats in store.stats().values())

    def is_settled(self) -> bool:
        """Say whether no job waits or runs."""
        with self.store() as store:
            return not any(sum(stats.counts[: State.COMPLETED]) for stats in store.stats().values())

    def ids(self) -> list[str]:
        """Return the ids of all jobs in the store, in the order of their dispatch."""
        found: list[str] = []
        after: bytes | None = b""
        with self.store() as store:
            while after is not None:
                page = store.find(Query(limit=200, after=after))
                found += [job.id.hex() for job in page.jobs]
                after = page.next
        return found

    # Runs.

    def events(self) -> list[list[str]]:
        """Return what the tasks have noted: event, label, pid, attempt, monotonic ns."""
        path = self.folder / "runs"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def noted(self) -> int:
        """Return how many bytes the tasks have noted so far."""
        path = self.folder / "runs"
        return path.stat().st_size if path.exists() else 0

    def runs(self) -> list[Run]:
        """Return the runs, in the order of their starts."""
        found: list[Run] = []
        open_runs: dict[tuple[str, str], int] = {}
        for event, label, pid, attempt, at in self.events():
            if event == "start":
                open_runs[label, pid] = len(found)
                found.append(Run(label, int(pid), int(attempt), int(at), None))
            elif event == "end":
                place = open_runs.pop((label, pid))
                found[place] = found[place]._replace(end=int(at))
        return sorted(found, key=lambda run: run.start)

    def started(self, label: str) -> list[Run]:
        """Return the runs of one label."""
        return [run for run in self.runs() if run.label == label]

    def runs_by_label(self) -> dict[str, list[Run]]:
        by_label: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            by_label[run.label].append(run)
        return by_label

    def open(self, gate: str) -> None:
        """Let the jobs that wait for a gate go on."""
        (self.folder / gate).touch()


@contextmanager
def serving(
    folder: Path, *modules: str, categories: Mapping[str, Mapping[str, Any]], **settings: Any
) -> Iterator[tuple[Project, Dispatcher]]:
    """A project with modules of tasks of its own, and a node that many tests share: none may hurt it."""
    project = Project(folder)
    project.bring(*modules)
    project.configure(categories, tasks=["tasks", *modules], **settings)
    try:
        node = project.start()
        eventually(lambda: node.workers() or not node.is_alive)
        yield project, project.dispatcher()
        assert node.is_alive, node.end_of_log
    finally:
        project.close()


def is_running(pid: int) -> bool:
    """Say whether a process is there and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def most_at_once(runs: Sequence[Run]) -> int:
    """Return how many of these runs went on at the same time, at most."""
    edges = sorted([(run.start, 1) for run in runs] + [(run.end or run.start, -1) for run in runs])
    most = level = 0
    for _, step in edges:
        level += step
        most = max(most, level)
    return most

"""`bench peers`: one measurement of ours and of each other library, in turn."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobsched.bench.peers import servers
from jobsched.bench.peers.app_jobsched import CATEGORY
from jobsched.bench.peers.marks import MARKS, Marks, drain_rate
from jobsched.bench.peers.processes import Started, clean_environment, started
from jobsched.bench.peers.rivals import OURS, Peer
from jobsched.bench.report import Tell, silent, waits
from jobsched.errors import JobschedError

__all__ = ["PeerFailed", "run_peer"]

_CONFIG = f"""\
store = "lmdb:store"
workers = 2
tasks = ["jobsched.bench.peers.app_jobsched"]

[categories.{CATEGORY}]
"""
_STEP_LIMIT_S = 300.0
_POLL_S = 0.02
_TOLD_LINES = 3
_LEAST_JOBS = 100


class PeerFailed(JobschedError):
    """A library did not do what was asked of it."""


def run_peer(
    peer: Peer, *, jobs: int, rate: float, pings: int, appendfsync: str, tell: Tell = silent
) -> dict[str, Any]:
    """Measure one library once.

    Half of the jobs are enqueued one call at a time, while nothing runs (`enqueue_jobs_per_s`), the
    others in bulk where the library can (`bulk_jobs_per_s`); then two workers start and run them all
    (`jobs_per_s`: from when both are ready; `cpu_us`: the processor time for a job in all processes, the
    server's too, which a loaded machine changes less). At last `pings` jobs are enqueued, `rate` a
    second, and wait for nothing but to be started: `p50_ms` ... `max_ms` from the call to the start.
    `jobs` are all of these, `executions` counts every start. Raises PeerFailed, NoServer.
    """
    jobs = max(_LEAST_JOBS, int(jobs * peer.share))
    with tempfile.TemporaryDirectory(prefix=".jobsched-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        with (
            contextlib.closing(Marks(folder / "marks", jobs + 1 + pings)) as marks,
            _served(peer, folder, appendfsync) as served,
        ):
            url = served.url
            places = {MARKS: str(folder / "marks"), servers.URL: url, peer.url_variable or servers.URL: url}
            environment = clean_environment(**places, **dict(peer.variables))
            measured = _Measured(peer, folder, environment, marks, server=served.server, tell=tell)
            return measured.enqueue(jobs) | measured.run(jobs, pings, rate)


@contextlib.contextmanager
def _served(peer: Peer, folder: Path, appendfsync: str) -> Iterator[servers.Served]:
    """Run what a library needs beside its workers."""
    if peer.server == "redis":
        with servers.redis(folder, appendfsync) as served:
            yield served
    elif peer.server == "postgres":
        with servers.postgres(folder) as served:
            yield served
    elif peer is OURS:
        file = folder / "categories.toml"
        file.write_text(_CONFIG)
        yield servers.Served(str(file))
    else:
        yield servers.Served(str(folder / "jobs.db"))


class _Measured:
    """One library with its server, while it is measured."""

    def __init__(
        self,
        peer: Peer,
        folder: Path,
        environment: Mapping[str, str],
        marks: Marks,
        *,
        server: Started | None,
        tell: Tell,
    ) -> None:
        self._peer = peer
        self._folder = folder
        self._environment = environment
        self._marks = marks
        self._servers: list[Started] = [] if server is None else [server]
        self._tell = tell

    def enqueue(self, jobs: int) -> dict[str, Any]:
        """Enqueue the jobs; return how fast."""
        singly = jobs // 2
        self._client("prepare")
        # Ours is asked through its node, as the others through their servers.
        with self._workers() if self._peer is OURS else contextlib.nullcontext():
            if self._peer is OURS:
                self._client("await_ready")
            self._tell(f"{self._peer.name}: enqueue", 0, jobs)
            one = self._client("one", 0, singly)
            many = self._client("many", singly, jobs - singly)
        self._client("release")
        bulk = {} if many.get("singly") else {"bulk_jobs_per_s": round(many["jobs"] / many["seconds"])}
        return {"enqueue_jobs_per_s": round(one["jobs"] / one["seconds"]), **bulk}

    def run(self, jobs: int, pings: int, rate: float) -> dict[str, Any]:
        """Run the jobs, and then some that find nothing before them; return how that went.

        Of those the first, for which the client has to connect, does not count.
        """
        with self._workers() as workers:
            figures = self._drain(workers, jobs)
            drained = self._marks.starts(0, jobs)
            _, *called = self._client("paced", jobs, 1 + pings, rate)["called"]
            self._await(workers, "latency", jobs, 1 + pings)
        starts = self._marks.starts(jobs + 1, pings)
        return {
            "jobs_per_s": round(drain_rate(drained)),
            **figures,
            "workers": len({start.worker for start in drained}),
            **waits([(start.at - at) / 1e6 for start, at in zip(starts, called, strict=True)]),
            "jobs": jobs + 1 + pings,
            "executions": sum(start.times for start in self._marks.starts(0, jobs + 1 + pings)),
        }

    def _drain(self, workers: Sequence[Started], jobs: int) -> dict[str, float]:
        """Wait until the jobs have started. Return the processor time for one of them in all processes,
        from when both workers were ready; nothing where few were left then.
        """
        self._await(workers, "drain", 0, jobs, is_enough=lambda: self._marks.workers(0, jobs) > 1)
        begun, cpu_s = self._marks.started(0, jobs), self._cpu_s(workers)
        self._await(workers, "drain", 0, jobs)
        if begun > jobs / 2:
            return {}
        return {"cpu_us": round((self._cpu_s(workers) - cpu_s) / (jobs - begun) * 1e6, 1)}

    def _cpu_s(self, workers: Sequence[Started]) -> float:
        return sum(process.cpu_s() for process in [*workers, *self._servers])

    @contextlib.contextmanager
    def _workers(self) -> Iterator[Sequence[Started]]:
        with contextlib.ExitStack() as stack:
            found = []
            for number, command in enumerate(self._peer.workers):
                worker = started(command, self._folder, self._environment, f"workers-{number}")
                stack.callback(worker.end)
                found.append(worker)
            yield found

    def _await(
        self,
        workers: Sequence[Started],
        what: str,
        first: int,
        count: int,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until jobs have started, all or enough of them.

        Raises PeerFailed when a worker dies, or after 5 minutes.
        """
        deadline = time.monotonic() + _STEP_LIMIT_S
        while (done := self._marks.started(first, count)) < count and not is_enough():
            self._tell(f"{self._peer.name}: {what}", done, count)
            dead = next((worker for worker in workers if not worker.is_alive), None)
            if dead is not None:
                raise PeerFailed(f"its workers ended with exit code {dead.exit_code}: {_last(dead.told())}")
            if time.monotonic() > deadline:
                raise PeerFailed(f"{done:,} of {count:,} jobs have started after {_STEP_LIMIT_S:g} s")
            time.sleep(_POLL_S)

    def _client(self, step: str, first: int = 0, count: int = 0, rate: float = 1.0) -> dict[str, Any]:
        """Have a client of its own process do a step; return what it tells."""
        words = [self._peer.app, step, str(first), str(count), str(rate)]
        try:
            ended = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "jobsched.bench.peers.client", *words],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_STEP_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"its client takes more than {_STEP_LIMIT_S:g} s for {step!r}") from None
        if ended.returncode:
            raise PeerFailed(f"its client ended with exit code {ended.returncode}: {_last(ended.stderr)}")
        told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return told


def _last(text: str) -> str:
    """Return the end of an output, in a line."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-_TOLD_LINES:]) or "it says nothing"

"""The check of the demo: every job's result against what the file itself says.

The same work is done once more, here and without jobs, on every file.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from jobsched.api import Task
from jobsched.demo import tasks
from jobsched.demo.results import Ended
from jobsched.demo.waves import inputs
from jobsched.job import State

__all__ = ["Check", "check", "direct_results"]

_Key = tuple[str, str]  # category and path
_PARTS = 32


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the check found.

    `expected` is one job for each file and task. `bytes` and `sha256` are over all files: the sum
    of their sizes, and one checksum of all their checksums.
    """

    expected: int
    ended: int
    agree: int
    disagree: list[str]
    bytes_by_jobs: int
    bytes_of_files: int
    sha256_by_jobs: str
    sha256_of_files: str

    @property
    def is_good(self) -> bool:
        """Whether every job ended once and agrees with its file."""
        return (
            self.expected == self.ended == self.agree
            and not self.disagree
            and (self.bytes_by_jobs, self.sha256_by_jobs) == (self.bytes_of_files, self.sha256_of_files)
        )


def check(jobs: Sequence[Ended], files: Sequence[Path]) -> Check:
    """Compare what the jobs found with the files."""
    direct = direct_results(files)
    found = {(job.category, job.path): _found(job) for job in jobs}
    keys = direct.keys() | found.keys()
    wrong = sorted(key for key in keys if key not in direct or key not in found or direct[key] != found[key])
    return Check(
        expected=len(direct),
        ended=sum(job.state in (State.COMPLETED, State.FAILED) for job in jobs),
        agree=len(keys) - len(wrong),
        disagree=[f"{category} {path}" for category, path in wrong],
        bytes_by_jobs=_bytes(found),
        bytes_of_files=sum(path.stat().st_size for path in files),
        sha256_by_jobs=_combined(found),
        sha256_of_files=_combined(direct),
    )


def direct_results(files: Sequence[Path]) -> dict[_Key, Any]:
    """Return what each task must give for each file: a result, or the name of the error it raises.

    Plain child processes share the work: threads would wait for each other while one is parsing.
    """
    parts = [files[start::_PARTS] for start in range(_PARTS)]
    pool = ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork"), _prepare_child)
    try:
        return dict(itertools.chain.from_iterable(pool.map(_direct_part, parts)))
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_child() -> None:
    """Leave Ctrl-C to the parent; look for no cycles, which syntax trees do not have."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()


def _direct_part(files: Sequence[Path]) -> list[tuple[_Key, Any]]:
    results = _digests(files) | _apply(tasks.compress, files) | _apply(tasks.index, files)
    return list(results.items())


def _digests(files: Sequence[Path]) -> dict[_Key, Any]:
    """Return sizes and checksums as the system and hashlib tell them, without our task."""
    digests: dict[_Key, Any] = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests["checksum", str(path)] = {"bytes": path.stat().st_size, "sha256": digest}
    return digests


def _apply(task: Task[[str], dict[str, Any]], files: Sequence[Path]) -> dict[_Key, Any]:
    """Return what the task's function gives when it is called here."""
    return {(str(task.category), str(path)): _call(task, path) for path in inputs(task, files)}


def _call(task: Task[[str], dict[str, Any]], path: Path) -> Any:
    try:
        return task(str(path))
    except Exception as error:  # noqa: BLE001 (whatever it raises, the job must have raised too)
        return type(error).__name__


def _found(job: Ended) -> Any:
    """Return a job's result in the form of `direct_results`."""
    if job.state is State.COMPLETED:
        return job.result
    return job.cause.partition(":")[0] if job.state is State.FAILED else str(job.state)


def _bytes(results: Mapping[_Key, Any]) -> int:
    return sum(result["bytes"] for result in _checksums(results).values())


def _combined(results: Mapping[_Key, Any]) -> str:
    """Return the SHA-256 of the lines that sha256sum would write, in the order of the paths."""
    lines = (f"{result['sha256']}  {path}\n" for path, result in sorted(_checksums(results).items()))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _checksums(results: Mapping[_Key, Any]) -> dict[str, Any]:
    """Return the checksum results by path; a failed one has none."""
    return {
        path: result
        for (category, path), result in results.items()
        if category == tasks.checksum.category and isinstance(result, dict)
    }

"""The program's own ground: Python, libraries, what the kernel offers, limits of the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

import lmdb

from jobsched.doctor.finding import Finding, error, fine, warning

__all__ = ["judge_engine", "judge_files", "judge_kernel", "judge_map", "judge_python", "look", "offered"]

_MAP_BYTES = 64 << 30  # what the store maps
_SPARE_FILES = 256  # the node's own, and its clients'
_FILES_PER_WORKER = 8
_PR_GET_CHILD_SUBREAPER = 37
_ENGINE = (0, 9)


def look(workers: int) -> Iterator[Finding]:
    """Look at all of it. `workers` is the configured budget."""
    yield judge_python(sys.version_info[:3], sys.platform, platform.machine())
    yield from _libraries()
    yield judge_engine(lmdb.version())
    yield judge_kernel(offered())
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE), workers)
    yield judge_map(resource.getrlimit(resource.RLIMIT_AS)[0])


def judge_python(version: tuple[int, ...], system: str, machine: str) -> Finding:
    """Judge the platform: what keeps processes from outliving their node is Linux's own."""
    name = f"Python {'.'.join(map(str, version))} on {system} {machine}"
    if not system.startswith("linux"):
        return warning("python", f"{name}: without pidfd, PDEATHSIG, subreaper and /proc", "run it on Linux")
    return fine("python", name)


def _libraries() -> Iterator[Finding]:
    found = []
    for name in ("lmdb", "multiprocess", "psutil", "msgspec", "typer"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield error("libraries", f"{name} is not installed", f"python -m pip install {name}")
    yield fine("libraries", ", ".join(found))


def judge_engine(version: tuple[int, ...]) -> Finding:
    """Judge LMDB: the store is of the file format of 0.9, whatever the library's default is."""
    text = ".".join(map(str, version))
    if version[:2] != _ENGINE:
        return error(
            "engine", f"LMDB {text}, expected 0.9: it cannot read the store", "pip install 'lmdb>=3,<4'"
        )
    return fine("engine", f"LMDB {text}")


def offered() -> Mapping[str, bool]:
    """Return which of the kernel's services that a node uses work here: a container may forbid them."""
    return {
        "pidfd": _works(lambda: os.close(os.pidfd_open(os.getpid()))),
        "subreaper": _works(_ask_subreaper),
        "memfd": _works(lambda: os.close(os.memfd_create("jobsched", os.MFD_CLOEXEC))),
        "/proc": os.access("/proc/self/environ", os.R_OK),
    }


def _works(service: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        service()
        return True
    return False


def _ask_subreaper() -> None:
    if ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()), 0, 0, 0):
        raise OSError


def judge_kernel(services: Mapping[str, bool]) -> Finding:
    """Judge the services: a node that lacks one may leave processes behind when it is killed."""
    missing = [name for name, works in services.items() if not works]
    if missing:
        text = f"{', '.join(missing)} not available: killed nodes may leave processes behind"
        return warning(
            "kernel", text, "allow them in the container's seccomp profile, or use Linux 5.4 or newer"
        )
    return fine("kernel", f"Linux {platform.release()}, with {', '.join(services)}")


def judge_files(limits: tuple[int, int], workers: int) -> Finding:
    """Judge the limits, soft and hard: each worker and each client takes descriptors of the node."""
    soft, hard = limits
    needed = _SPARE_FILES + _FILES_PER_WORKER * workers
    if soft != resource.RLIM_INFINITY and soft < needed:
        first = "" if hard == resource.RLIM_INFINITY or hard >= needed else f" (the hard limit is {hard})"
        text = f"{soft} open files allowed, {workers} workers and their clients need about {needed}{first}"
        return warning("limits", text, f"ulimit -n {max(needed, 4096)}")
    return fine("limits", f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} open files allowed")


def judge_map(limit: int) -> Finding:
    """Judge the limit on address space: the store maps a sparse file of 64 GiB."""
    if limit != resource.RLIM_INFINITY and limit < 2 * _MAP_BYTES:
        text = (
            f"address space is limited to {limit >> 20:,} MiB, the store maps {_MAP_BYTES >> 30} GiB (sparse)"
        )
        return error("limits", text, "ulimit -v unlimited")
    return fine("limits", "address space is enough")

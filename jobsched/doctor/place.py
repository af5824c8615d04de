"""The store's directory from outside: who may enter, who holds its locks, what was left behind."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from jobsched import fence
from jobsched.amount import many
from jobsched.doctor.finding import Finding, error, fine, warning
from jobsched.errors import JobschedError, StoreUnsafe
from jobsched.holders import openers
from jobsched.locks import is_locked
from jobsched.node_connection import NodeConnection
from jobsched.store.hold import NODE, WRITERS, lock_holder
from jobsched.store.place import make_private

__all__ = [
    "file_system",
    "is_usable",
    "judge_file_system",
    "judge_files",
    "left_behind",
    "look",
    "look_at_mutex",
    "mutex_samples",
]

_ANSWER_S = 3.0
_VOLATILE = {"tmpfs": "a reboot empties it", "ramfs": "a reboot empties it"}
_LAYERS = {"overlay": "it is deleted with its container"}

# Where LMDB 0.9 on x86-64 keeps its writers' lock: the thread that holds it, twice. A process must
# not open lock.mdb beside an environment of its own: closing it drops LMDB's locks. Hence a child.
_SAMPLER = """
import sys, time
for _ in range(8):
    with open(sys.argv[1], "rb") as file:
        head = file.read(80)
    word = int.from_bytes(head[64:68], "little") & 0x3fffffff
    print(word, int.from_bytes(head[72:76], "little"))
    if not word:
        break
    time.sleep(0.05)
"""


def is_usable(store: Path) -> Finding:
    """Return whether the directory may hold a store: an error means that no process opens it."""
    try:
        make_private(store)
    except StoreUnsafe as problem:
        return error(
            "store", str(problem), f"chmod 700 {store}" if "mode" in str(problem) else f"ls -ld {store}"
        )
    return fine("store", str(store))


def look(store: Path) -> Iterator[Finding]:
    """Look at a directory that is there and usable."""
    yield judge_file_system(file_system(store), store)
    yield from judge_files(store)
    is_running = is_locked(store / NODE)
    yield from _look_at_node(store) if is_running else _look_without_node(store)
    yield from look_at_mutex(mutex_samples(store / "lock.mdb"))


def file_system(path: Path) -> str:
    """Return the kind of file system that a path lies on, empty where that cannot be told."""
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    real = path.resolve()
    return next((mounts[place] for place in (real, *real.parents) if place in mounts), "")


def judge_file_system(kind: str, path: Path) -> Finding:
    """Judge a file system: network ones are refused when a store is opened, others may not keep it."""
    why = {**_VOLATILE, **_LAYERS}.get(kind)
    if why:
        return warning(
            "store", f"{path} is on {kind}: {why}", "set store in categories.toml to a place on a disk"
        )
    return fine("store", f"on a file system of kind {kind or 'unknown'}")


def judge_files(store: Path) -> Iterator[Finding]:
    """Judge the modes: who reads the files sees arguments, who writes them runs code as their owner."""
    for file in sorted(store.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.lstat().st_mode)
            if mode & 0o077 and not file.is_symlink():
                yield error("store", f"{file} is open to others (mode {mode:o})", f"chmod go= {file}")


# Who holds what.


def _look_at_node(store: Path) -> Iterator[Finding]:
    holder = lock_holder(store) or "its pid is not known"
    stopped = [pid for pid in openers(store / NODE) if _is_stopped(pid)]
    if stopped:
        yield error("node", f"the node ({holder}) is stopped, nothing goes on", f"kill -CONT {stopped[0]}")
        return
    try:
        NodeConnection(store, _ANSWER_S).close()
    except (OSError, JobschedError) as problem:
        why = str(problem) or type(problem).__name__
        yield error("node", f"the node ({holder}) does not answer: {why}", "stop it and start it again")
    else:
        yield fine("node", f"one runs ({holder}) and answers")


def _look_without_node(store: Path) -> Iterator[Finding]:
    yield fine("node", "none runs")
    left = left_behind(store)
    if left:
        text = f"left of a killed node: {many(len(left), 'process')}, pid {', '.join(map(str, left))}"
        yield warning("node", text, f"jobsched run (it ends them), or kill -9 {' '.join(map(str, left))}")
    if is_locked(store / WRITERS):
        pids = openers(store / WRITERS)
        held = [pid for pid in pids if _is_stopped(pid)]
        who = f"pid {', '.join(map(str, pids))}" if pids else "a process that cannot be seen"
        if held:
            yield error(
                "node", f"a client that is stopped holds writers.lock ({who})", f"kill -CONT {held[0]}"
            )
        else:
            yield fine("node", f"a client is writing ({who})")


def left_behind(store: Path) -> list[int]:
    """Return the processes that carry the marker of this store's workers."""
    mark = f"{fence.MARKER}={fence.marked(store)}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # gone, or another user's
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    return False


def mutex_samples(lock_file: Path) -> list[tuple[int, int]]:
    """Return who held LMDB's writers' lock at some moments, as thread id twice; 0 ends it: nobody."""
    if not lock_file.exists():
        return []
    try:
        ran = subprocess.run(  # noqa: S603 (our own interpreter)
            [sys.executable, "-I", "-c", _SAMPLER, lock_file], capture_output=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return []
    pairs = (line.split() for line in ran.stdout.splitlines())
    return [(int(word), int(owner)) for word, owner in pairs]


def look_at_mutex(samples: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Judge who holds LMDB's lock: the same thread at every moment keeps all others from writing."""
    if not samples or len(set(samples)) > 1 or not samples[0][0] or samples[0][0] != samples[0][1]:
        return
    thread = samples[0][0]
    facts = _facts(thread)
    if facts is None:
        return  # gone: the next writer gets the lock
    pid, state, name = facts["Tgid"], facts["State"], facts["Name"]
    text = f"pid {pid} ({name}) holds the store's write lock and is {state.split(maxsplit=1)[-1].strip('()')}"
    if state.startswith(("T", "t")):
        yield error("writers", f"{text}: nobody else can write", f"kill -CONT {pid}, or kill -9 {pid}")
    else:
        yield warning(
            "writers", f"{text}, for {len(samples) * 50} ms at least", f"ps -o stat,wchan,cmd -p {pid}"
        )


def _facts(thread: int) -> Mapping[str, str] | None:
    try:
        lines = Path(f"/proc/{thread}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

"""The two C libraries of this folder that are preloaded into processes under torture."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY = Path("/dev/shm")
STORE_FILE = "data.mdb"


def why_not() -> str | None:
    """Say why nothing can be preloaded here, None if it can."""
    return None if _compiler() else "there is no C compiler: cc is needed to record or fail writes"


def compiled(name: str, folder: Path) -> Path:
    """Return the library of a C file of this folder, compiled into another."""
    compiler = _compiler()
    assert compiler, "no C compiler: ask why_not() first"
    library = folder / f"{name}.so"
    options: Sequence[str] = ("-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / f"{name}.c"), "-ldl")
    subprocess.run([compiler, *options], check=True)
    return library


def environment(library: Path, **settings: str | Path) -> dict[str, str]:
    """Return what to add to the environment of a process that is to load a library first."""
    return {"LD_PRELOAD": str(library), "TORTURE_FILE": STORE_FILE} | {
        name: str(value) for name, value in settings.items()
    }


@contextmanager
def memory_folder(folder: Path) -> Iterator[Path]:
    """Give a folder in memory that goes with another: what a flush costs is not under test.

    Without such a file system it lies in that other one.
    """
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    place = MEMORY / folder.name if is_there else folder / "memory"
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

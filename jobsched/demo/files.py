"""The demo's input: the standard library of the Python that runs, and two files that are no source."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path

__all__ = ["find_files", "library", "library_files", "write_invalid"]

_NOT_OURS = frozenset({"site-packages", "dist-packages", "__pycache__"})
_INVALID = {
    "unclosed_bracket.py": "def total(prices:\n    return sum(prices)\n",
    "missing_indent.py": "for price in (1, 2):\nprint(price)\n",
}


def find_files(folder: Path, limit: int | None = None) -> list[Path]:
    """Return the demo's files, in order; two of them are written into `folder`.

    `limit` takes that many of the library's, evenly spread over it.
    """
    found = library_files(library())
    return (found if limit is None else _spread(found, limit)) + write_invalid(folder)


def library() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(root: Path) -> list[Path]:
    """Return every file below a folder, sorted, but for installed packages and caches."""
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _NOT_OURS]
        found += [path for path in (Path(folder, name) for name in names) if path.is_file()]
    return sorted(found)


def write_invalid(folder: Path) -> list[Path]:
    """Write source files that no Python accepts."""
    paths = [folder / name for name in _INVALID]
    for path in paths:
        path.write_text(_INVALID[path.name], encoding="utf-8")
    return paths


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    """Return some of the files, at even distances."""
    count = min(count, len(files))
    return [files[place * len(files) // count] for place in range(count)]

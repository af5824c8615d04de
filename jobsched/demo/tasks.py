"""The demo's tasks: what is done to each file."""

from __future__ import annotations

import ast
import hashlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobsched import task

__all__ = ["checksum", "compress", "index"]

_LEVEL = 3  # the demo is to end within a minute on slow machines too
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")  # where statements hold statements


@task(category="checksum", max_retries=0)
def checksum(path: str) -> dict[str, Any]:
    """Return a file's size and SHA-256."""
    data = Path(path).read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@task(category="compress", max_retries=0)
def compress(path: str) -> dict[str, Any]:
    """Return a file's size, and its size once compressed."""
    data = Path(path).read_bytes()
    return {"bytes": len(data), "packed": len(zlib.compress(data, _LEVEL))}


@task(category="index", max_retries=0)
def index(path: str) -> dict[str, Any]:
    """Return what a source file defines: qualified names in their order, and how many of each kind.

    Raises SyntaxError for a file that is not valid source.
    """
    with warnings.catch_warnings(action="ignore"):  # of old escapes and the like
        tree = ast.parse(Path(path).read_bytes())
    found = list(_definitions(tree.body))
    classes = sum(isinstance(node, ast.ClassDef) for _, node in found)
    return {"classes": classes, "functions": len(found) - classes, "names": [name for name, _ in found]}


def _definitions(body: Sequence[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the definitions in some statements and below them, with their qualified names."""
    rest = [("", node) for node in reversed(body)]
    while rest:
        prefix, node = rest.pop()
        if isinstance(node, _DEFINITIONS):
            yield prefix + node.name, node
            prefix += f"{node.name}."
        inner = [child for block in _BLOCKS for child in getattr(node, block, ())]
        rest += [(prefix, child) for child in reversed(inner)]

"""From an older format of the store to the current one: a backup first, then step by step.

All steps are one transaction, so a store is in the old format or in the new one, never between.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import lmdb

from jobsched.clock import SystemClock
from jobsched.errors import StoreError, StoreFormatError
from jobsched.locks import lock_file, try_lock
from jobsched.store import lmdb_layout as layout
from jobsched.store.backup import free_name, write_backup
from jobsched.store.hold import NODE, lock_holder
from jobsched.store.lmdb_layout import Databases, Txn

__all__ = ["STEPS", "Step", "fields_added", "migrate"]

log = logging.getLogger(__name__)

Step = Callable[[Txn, Databases], None]


def fields_added(_txn: Txn, _dbs: Databases) -> None:
    """Change nothing: old records decode with defaults, and new databases begin empty."""


STEPS: Mapping[int, Step] = {1: fields_added}
"""By the format that they start from, the steps to the next one."""


def migrate(
    env: lmdb.Environment, dbs: Databases, path: Path, steps: Mapping[int, Step] | None = None
) -> None:
    """Bring a store of an older format to the current one.

    A backup is left in the store's directory, as `before-format-N`. Raises StoreFormatError where no
    step leads on, StoreError while a node runs on the store (it is of the older release), or when
    there is no room for the backup: the store is as it was then.
    """
    steps = STEPS if steps is None else steps
    with _without_node(path):
        found = _format(env, dbs)
        wanted = range(found, layout.FORMAT)
        missing = [number for number in wanted if number not in steps]
        if missing:
            raise StoreFormatError(
                f"the store {path} has format {found}, and no step leads from format {missing[0]} on:"
                " open it with an earlier jobsched"
            )
        if not wanted:
            return  # another process was faster
        target = free_name(path / f"before-format-{layout.FORMAT}")
        write_backup(env, path, target, now=SystemClock().now())
        _walk(env, dbs, [steps[number] for number in wanted], target)
    log.info("migrated %s from format %d to %d, a backup is in %s", path, found, layout.FORMAT, target)


def _walk(env: lmdb.Environment, dbs: Databases, steps: Sequence[Step], target: Path) -> None:
    """Take all steps in one transaction; without them the backup is of no use, and goes."""
    try:
        with env.begin(write=True) as txn:
            for step in steps:
                step(txn, dbs)
            txn.put(b"format", str(layout.FORMAT).encode(), db=dbs.meta)
    except lmdb.Error as error:  # of the commit too: then nobody knows, and the backup stays
        raise StoreError(f"cannot migrate the store {target.parent}: {error}") from error
    except BaseException:
        shutil.rmtree(target)
        raise


def _format(env: lmdb.Environment, dbs: Databases) -> int:
    with env.begin(db=dbs.meta) as txn:
        return int(txn.get(b"format") or 0)


@contextlib.contextmanager
def _without_node(path: Path) -> Iterator[None]:
    """Keep nodes from starting, unless we are the node: an older one knows only its own format."""
    with lock_file(path / NODE) as handle:
        if not try_lock(handle) and not _is_ours(path / NODE):
            raise StoreError(
                f"a node of an earlier jobsched runs on {path} ({lock_holder(path)}):"
                " stop it before this one opens the store"
            )
        yield


def _is_ours(lock: Path) -> bool:
    """Say whether this process holds a lock file. Its pid would not tell: another container's node
    has the same, as often as both are the first process of theirs.
    """
    wanted = lock.stat()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            is_lock = os.path.samestat(entry.stat(), wanted)
            if is_lock and "FLOCK" in Path("/proc/self/fdinfo", entry.name).read_text():
                return True
    return False

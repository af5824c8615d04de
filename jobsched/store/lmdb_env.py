"""Opening the file of a store: made whole before it gets its name, of the current format, private."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

import lmdb

from jobsched.errors import StoreError, StoreFormatError, StoreUnsafe
from jobsched.store import lmdb_layout as layout
from jobsched.store.lmdb_layout import Databases
from jobsched.store.migrate import migrate
from jobsched.store.place import sync_directory

__all__ = ["open_environment"]

_MAP_SIZE = 64 << 30  # sparse; never grown at run time


def open_environment(path: Path) -> tuple[lmdb.Environment, Databases]:
    """Return the environment in a directory and its databases; created if there is none.

    A store of an older format is migrated. Raises StoreUnsafe, StoreFormatError, StoreError; nothing
    stays open then.
    """
    try:
        if not (path / "data.mdb").exists():
            _create(path)
        env, dbs = _open(path)
        try:
            _check_format(path, env, dbs)
        except BaseException:
            env.close()  # else it could not be opened again in this process
            raise
    except MemoryError as error:
        raise StoreUnsafe(f"cannot map {path}: raise the limit on address space (ulimit -v)") from error
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"cannot open the store {path}: {error}") from error
    return env, dbs


def _create(path: Path) -> None:
    """Make the file whole before it gets its name: what a power cut or a full disk leaves of one that
    is half made could never be opened.
    """
    making = path / f"new-{uuid.uuid4().hex}"
    making.mkdir(mode=0o700)
    try:
        env, dbs = _open(making)
        with env, env.begin(db=dbs.meta, write=True) as txn:
            txn.put(b"format", str(layout.FORMAT).encode())
            txn.put(b"store", uuid.uuid4().bytes)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(making / "data.mdb", path / "data.mdb")
        for place in (path, path.parent):  # LMDB does not flush directory entries
            sync_directory(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _open(path: Path) -> tuple[lmdb.Environment, Databases]:
    env = lmdb.open(str(path), map_size=_MAP_SIZE, max_dbs=32, max_readers=1024, mode=0o700, lib_version=0)
    try:
        env.reader_check()
        return env, Databases.open(env)
    except BaseException:
        env.close()
        raise


def _check_format(path: Path, env: lmdb.Environment, dbs: Databases) -> None:
    with env.begin(db=dbs.meta) as txn:
        found = txn.get(b"format")
    if found is None:
        raise StoreFormatError(f"{path} holds an LMDB file that is no store of jobsched")
    if not found.isdigit() or int(found) > layout.FORMAT:
        raise StoreFormatError(
            f"the store {path} has format {found.decode(errors='replace')}, this jobsched "
            f"knows up to {layout.FORMAT}: upgrade jobsched"
        )
    if int(found) < layout.FORMAT:
        migrate(env, dbs, path)

"""Reading the store without a node: short reads of the file itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import lmdb

from jobsched.config import Config
from jobsched.errors import InvalidOption, JobNotFound, JobschedError, StoreError, Unavailable
from jobsched.gateway import Gateway
from jobsched.job_id import parse_id
from jobsched.node_connection import NodeConnection
from jobsched.report import NodeReport
from jobsched.store.base import CategoryStats, JobStore
from jobsched.store.lmdb import open_store

__all__ = ["job_id", "read_stats", "reading", "settle", "survey"]

_PATIENCE_S = 1.0


@contextlib.contextmanager
def reading(config: Config) -> Iterator[JobStore | None]:
    """Give the store to read from; None where nothing has been stored yet (it is not created).

    Print only after the block: a long read makes the file grow. Raises StoreError, InvalidOption
    for a memory: store, which no other process can read.
    """
    if config.store.kind == "memory":
        raise InvalidOption(
            "a memory: store can be read by its node alone; use lmdb: to look at jobs from here"
        )
    path = config.store.path
    try:
        if not (path / "data.mdb").exists():
            yield None
            return
        settle(config)
        with contextlib.closing(open_store(path)) as store:
            yield store
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"cannot read the store {path}: {error}") from error


def settle(config: Config) -> None:
    """Have all that was accepted be in the store's file. A node that does not answer is not waited for
    long: what it has is shown.
    """
    gateway = Gateway(config.store.path, durable=True, quota_bytes=config.quota_bytes)
    with contextlib.closing(gateway), contextlib.suppress(Unavailable):
        gateway.settle()


def read_stats(config: Config) -> dict[str, CategoryStats]:
    """Return the counts of every category, configured or only stored, in that order."""
    with reading(config) as store:
        found = store.stats() if store else {}
    empty = {name: CategoryStats([0] * 8) for name in config.categories}
    return {**empty, **{name: found[name] for name in empty if name in found}, **found}


def survey(config: Config) -> NodeReport | None:
    """Return how the node on the store is doing; None where none runs, or it does not answer."""
    try:
        connection = NodeConnection(config.store.path, patience_s=_PATIENCE_S)
    except (OSError, JobschedError):
        return None
    try:
        return connection.survey()
    except (OSError, JobschedError):
        return None
    finally:
        connection.close()


def job_id(config: Config, text: str) -> bytes:
    """Return the id that a text stands for: an id, or 6 or more digits of its beginning or end.

    Raises JobNotFound, InvalidOption when more than one job is meant.
    """
    with contextlib.suppress(ValueError):
        return parse_id(text)
    with reading(config) as store:
        try:
            found = store.resolve(text) if store else []
        except ValueError as error:
            raise InvalidOption(str(error)) from None
    if not found:
        raise JobNotFound(text)
    if len(found) > 1:
        raise InvalidOption(f"{text!r} is the beginning or end of more than one job's id: give more of it")
    return found[0]

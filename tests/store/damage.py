"""Damage done to a store's rows behind its back."""

import contextlib

import lmdb as engine
import msgspec

from jobsched.codec import seal
from jobsched.store.lmdb_layout import Databases


@contextlib.contextmanager
def changing(place):
    """Give a write transaction behind the store's back, and the databases."""
    with engine.open(str(place), max_dbs=32, map_size=1 << 30) as env:
        dbs = Databases.open(env)
        with env.begin(write=True) as txn:
            yield txn, dbs


def only_row(txn, db):
    """Return key and value of a database's one row."""
    [(key, value)] = txn.cursor(db=db)
    return key, value


def encoded(row):
    """Return a row as it is stored."""
    return seal(msgspec.msgpack.encode(row))

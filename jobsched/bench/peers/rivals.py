"""Who is compared, each with its best sane settings: nothing lost when a worker dies, two workers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

from jobsched.bench.peers.servers import missing
from jobsched.config import ENVIRONMENT
from jobsched.errors import InvalidOption, nearest

__all__ = ["OURS", "PEERS", "Peer", "absence", "chosen", "version"]


class Peer(NamedTuple):
    """A library in a setting.

    `app` names the module that speaks to it, `packages` are what it needs of PyPI, the first its own;
    `server` is the server that it needs; `workers` are the commands that make two workers, `variables`
    their environment, `url_variable` the one in which they look for the server. `share` of the jobs is
    what a slow one gets, so that it does not take all day. `settings` says in words what is not default.
    """

    name: str
    app: str
    packages: tuple[str, ...]
    server: str | None
    workers: tuple[tuple[str, ...], ...]
    settings: str
    variables: tuple[tuple[str, str], ...] = ()
    url_variable: str | None = None
    share: float = 1.0


_PYTHON = (sys.executable, "-m")
_APPS = "jobsched.bench.peers"

OURS = Peer(
    name="jobsched",
    app="jobsched",
    packages=("jobsched",),
    server=None,
    workers=((*_PYTHON, "jobsched", "run"),),
    settings="one node, two workers; every commit flushed",
    url_variable=ENVIRONMENT,
)

_CELERY = (
    *(*_PYTHON, "celery", "-A", f"{_APPS}.app_celery", "worker", "--pool", "solo", "--loglevel", "ERROR"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
_RQ = (
    *(*_PYTHON, "rq.cli", "worker", "bench", "--worker-class", "rq.worker.SimpleWorker"),
    *("--quiet", "--disable-job-desc-logging"),
)
_HUEY = (
    *(*_PYTHON, "huey.bin.huey_consumer", f"{_APPS}.app_huey.huey", "-w", "2", "-k", "process"),
    *("-n", "-q", "-d", "0.01", "-m", "0.1"),
)
_PROCRASTINATE = (
    *(*_PYTHON, "procrastinate", "--app", f"{_APPS}.app_procrastinate.app", "worker"),
    *("--concurrency", "1", "--delete-jobs", "successful"),
)

PEERS = (
    Peer(
        name="celery (redis)",
        app="celery",
        packages=("celery", "redis"),
        server="redis",
        workers=((*_CELERY, "-n", "one@%h"), (*_CELERY, "-n", "two@%h")),
        settings="two solo processes, acks late, prefetch 128, no results, gossip, mingle, heartbeat",
        share=0.5,
    ),
    Peer(
        name="dramatiq (redis)",
        app="dramatiq",
        packages=("dramatiq", "redis"),
        server="redis",
        workers=((*_PYTHON, "dramatiq", f"{_APPS}.app_dramatiq", "-p", "2", "-t", "1"),),
        settings="two processes of one thread, prefetch 64, no results",
        variables=(("dramatiq_queue_prefetch", "64"),),
    ),
    Peer(
        name="rq (redis)",
        app="rq",
        packages=("rq", "redis"),
        server="redis",
        workers=(_RQ, _RQ),
        settings="two SimpleWorkers (no fork per job), results not kept",
        url_variable="RQ_REDIS_URL",
        share=0.1,
    ),
    Peer(
        name="huey (redis)",
        app="huey",
        packages=("huey", "redis"),
        server="redis",
        workers=(_HUEY,),
        settings="two processes, no results, no periodic tasks",
    ),
    Peer(
        name="huey (sqlite)",
        app="huey",
        packages=("huey",),
        server=None,
        workers=(_HUEY,),
        settings="two processes, polling every 10 to 100 ms, no results; every commit flushed",
        share=0.5,
    ),
    Peer(
        name="procrastinate (pg)",
        app="procrastinate",
        packages=("procrastinate", "psycopg", "psycopg-binary"),
        server="postgres",
        workers=(_PROCRASTINATE, _PROCRASTINATE),
        settings="two processes, async task, LISTEN/NOTIFY, finished jobs deleted; every commit flushed",
        share=0.1,
    ),
)


def absence(peer: Peer) -> str | None:
    """Return why a peer cannot be measured here, None if it can."""
    absent = [package for package in peer.packages if version(package) is None]
    if absent:
        return f"not installed: pip install {' '.join(absent)}"
    return missing(peer.server)


def version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def chosen(names: Sequence[str]) -> list[Peer]:
    """Return the peers whose names begin with one of these, all without any. Raises InvalidOption."""
    for name in names:
        if not any(peer.name.startswith(name) for peer in PEERS):
            known = dict.fromkeys(peer.app for peer in PEERS)
            raise InvalidOption(f"unknown peer {name!r}{nearest(name, known)}")
    return [peer for peer in PEERS if not names or peer.name.startswith(tuple(names))]

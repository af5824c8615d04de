"""jobsched, one process of which kills itself at the n-th passage of a place.

`python crash_launcher.py ARGUMENTS…` with $TORTURE_PLACE, a name of `crash_places.PLACES`, $TORTURE_PASSAGE,
and $TORTURE_PASSED, a file that all processes and lives count in. The preloader, which is spawned,
imports this again under another name, and workers are its forks: so all of them are watched.
"""

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Self

import lmdb as engine


class WatchedTransaction:
    """A write transaction whose commit is a place like any other: that of LMDB cannot be wrapped."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self._transaction.__exit__(*problem)

    def commit(self) -> None:
        self._transaction.commit()


class WatchedEnvironment:
    """An environment that gives such transactions."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, *args: Any, **options: Any) -> Any:
        transaction = self._environment.begin(*args, **options)
        return WatchedTransaction(transaction) if options.get("write") else transaction

    def open_db(self, name: bytes, transaction: Any = None, **options: Any) -> Any:
        own = transaction._transaction if isinstance(transaction, WatchedTransaction) else transaction
        return self._environment.open_db(name, own, **options)


def passage() -> int:
    """Count a passage, of whatever process; return its number."""
    handle = os.open(os.environ["TORTURE_PASSED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, b".")
        return os.lseek(handle, 0, os.SEEK_CUR)  # where this very write ended
    finally:
        os.close(handle)


def pass_by() -> None:
    """Die here if it is the passage that was asked for."""
    if passage() == int(os.environ["TORTURE_PASSAGE"]):
        os.kill(os.getpid(), signal.SIGKILL)


def watched(call: Callable[..., Any], *, is_after: bool) -> Callable[..., Any]:
    """Return a function that passes by before or after it calls another."""

    @functools.wraps(call)
    def passing(*args: Any, **options: Any) -> Any:
        if not is_after:
            pass_by()
        result = call(*args, **options)
        if is_after:
            pass_by()
        return result

    return passing


def arm() -> None:
    """Watch the place."""
    from crash_places import PLACES  # noqa: PLC0415 (the folder is on the path only by now)

    place = PLACES[os.environ["TORTURE_PLACE"]]
    if place.attribute.startswith(WatchedTransaction.__name__):
        open_environment = engine.open
        engine.open = lambda *args, **options: WatchedEnvironment(open_environment(*args, **options))
        owner: Any = sys.modules[__name__]
    else:
        owner = importlib.import_module(place.module)
    *path, name = place.attribute.split(".")
    for step in path:
        owner = getattr(owner, step)
    setattr(owner, name, watched(getattr(owner, name), is_after=place.is_after))


if __name__ in ("__main__", "__mp_main__"):
    arm()

if __name__ == "__main__":
    from jobsched.cli import main

    sys.argv[0] = "jobsched"
    main()

"""Taking in all that journals hold, by whoever may write to the store while no node does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from jobsched.errors import StoreError
from jobsched.journal.file import journal_files
from jobsched.journal.reader import Dispatched, Reader, request_of
from jobsched.store.base import JobStore, Refused, Turn
from jobsched.store.place import JOURNALS, sync_directory

__all__ = ["dropped", "opened", "outlived", "set_aside", "take_in"]

log = logging.getLogger(__name__)

_AT_ONCE = 1000  # entries of one transaction


def take_in(store: JobStore, place: Path, now: int) -> Refused | None:
    """Put into a store what the journals beside it hold; those whose clients are gone are deleted. Return why
    not all of it is in the store, if so: what finds no room stays where it is, and nothing that was
    dispatched later may be added before it.

    `place` is the store's directory, `now` in UTC microseconds. Only for who holds writers.lock. Raises what
    `JobStore.apply` does, StoreError if a journal cannot be opened.
    """
    folder = place / JOURNALS
    if not folder.is_dir():
        return None
    marks = store.journals()
    refused = _take_in(store, folder, now)
    if refused is not None and store.journals() != marks:
        # Who was killed while it committed may have left readers a commit behind, until somebody wrote: we.
        refused = _take_in(store, folder, now)
    if refused is not None:
        log.warning("journals of %s are not taken in: %s", place, refused.reason)
    return refused


def _take_in(store: JobStore, folder: Path, now: int) -> Refused | None:
    readers = opened(folder, store)
    with contextlib.ExitStack() as stack:
        for reader in readers:
            stack.callback(reader.close)
        gone = [reader for reader in readers if reader.is_abandoned()]  # asked before what they hold is read
        entries = iter(sorted(entry for reader in readers for entry in _read(reader)))
        while part := list(islice(entries, _AT_ONCE)):
            [reply] = store.apply(Turn(now=now, requests=[request_of(part)])).replies
            if isinstance(reply, Refused):
                return reply
        dropped(folder, gone)
        forgotten = outlived(folder, store) if gone else []
        if forgotten:
            store.apply(Turn(now=now, forget_journals=forgotten))
    return None


def opened(folder: Path, store: JobStore) -> list[Reader]:
    """Return a reader of each journal in a directory of them, from behind what the store has.

    Raises StoreError if one cannot be opened now.
    """
    files = journal_files(folder)
    marks = store.journals() if files else {}
    readers: list[Reader] = []
    for path in files:
        try:
            readers.append(Reader(path, marks.get(path.stem, 0)))
        except FileNotFoundError:
            continue
        except ValueError as error:
            set_aside(path, str(error))
        except OSError as error:  # too many open files, say: nothing is wrong with the journal
            for reader in readers:
                reader.close()
            raise StoreError(f"cannot open the journal {path}: {error}") from error
    return readers


def outlived(folder: Path, store: JobStore) -> list[str]:
    """Return the journals of which a store has a mark, and whose files are gone, from the disk too: a file
    that came back without its mark would be taken in again.
    """
    gone = sorted(store.journals().keys() - {file.stem for file in journal_files(folder)})
    if gone:
        sync_directory(folder)
    return gone


def dropped(folder: Path, readers: list[Reader]) -> list[str]:
    """Delete journals whose clients are gone and that are in the store; return their names.

    On return they are gone from the disk, so that their marks may be forgotten.
    """
    for reader in readers:
        reader.path.unlink(missing_ok=True)
    if readers:
        sync_directory(folder)
    return [reader.name for reader in readers]


def set_aside(path: Path, why: str) -> None:
    """Give a journal another name that cannot be taken in; nothing is deleted."""
    kept = path.with_suffix(".unreadable")
    log.error("a journal was set aside as %s: %s", kept, why)
    with contextlib.suppress(FileNotFoundError):
        path.rename(kept)


def _read(reader: Reader) -> Iterator[Dispatched]:
    try:
        while found := reader.read():  # which ends before what cannot be read: that is told the next time
            yield from found
    except ValueError as error:
        set_aside(reader.path, str(error))

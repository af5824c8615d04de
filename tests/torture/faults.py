"""The control block of fail_writes.c: which writes of a process fail, and what has failed."""

import errno
import itertools
import mmap
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

DATA, META, FLUSH = 1, 2, 4
_FIELDS = struct.Struct("<7q")

OPERATIONS = {"data": DATA, "meta": META, "flush": FLUSH}
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "short": 0}
LENGTHS = {"once": 1, "for a while": 4}


class Fault(NamedTuple):
    """What is to fail: after so many that pass, so many. `error` 0 writes only a part."""

    name: str
    operation: int
    passes: int
    failures: int
    error: int


def all_faults(passes: int) -> list[Fault]:
    """Return a fault of each kind, after so many operations of its kind."""
    return [
        Fault(f"{operation} {error} {length} after {passes}", OPERATIONS[operation], passes, failures, code)
        for (operation, (error, code), (length, failures)) in itertools.product(
            OPERATIONS, ERRORS.items(), LENGTHS.items()
        )
    ]


class Faults:
    """The block, in a file that the process under torture maps as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, _FIELDS.size)
            self._block = mmap.mmap(handle, _FIELDS.size)
        finally:
            os.close(handle)

    def arm(self, fault: Fault) -> None:
        self._write(fault.operation, fault.passes, fault.failures, fault.error)

    def disarm(self) -> None:
        """Let everything pass. What has failed stays counted."""
        failed = self.failed
        self._write(0, 0, 0, 0, failed)

    @property
    def is_pending(self) -> bool:
        """Whether something is still to fail."""
        return self._fields()[2] > 0

    @property
    def failed(self) -> int:
        """How many operations have failed."""
        return self._fields()[4]

    @property
    def has_committed_since(self) -> bool:
        """Whether a flush and a meta page have been written since the last failure."""
        *_, flushed, sealed = self._fields()
        return bool(flushed and sealed)

    def _fields(self) -> tuple[int, ...]:
        return _FIELDS.unpack(self._block[:])

    def _write(self, *values: int) -> None:
        self._block[:] = _FIELDS.pack(*values, *[0] * (7 - len(values)))

    def close(self) -> None:
        self._block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

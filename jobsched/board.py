"""A worker's board: memory that it shares with its node, readable even when the worker is stuck.

The worker writes on it what it runs, since when, until when, and the last output of the job; the
node reads there when a job has overstayed, and what a dead one had to say. The worker's outbox lies
there too. The node writes on it
which job is to be cancelled, so that asking costs the job nothing. No lock: each field has one
writer, and a reader believes the others only while `claim` is the one that it means.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import struct
from typing import NamedTuple

from jobsched import outbox
from jobsched.outbox import Outbox

__all__ = ["Board", "Posted"]

_RING = 16 << 10
_FAULT = 16 << 10
# Written by the worker: the bytes of output so far, started, kill at, retry after, limit, and the
# claim last, as the rest counts only with it.
_begun = struct.Struct("=QqqqqQ")
_posted = struct.Struct("=qqqqQ")
_POSTED_AT = 8
_LENGTH, _CLAIM, _ASKED, _STAGE = 0, 5, 6, 7  # words; the last two are written by the node
_RING_AT = 64
_OUTBOX_AT = _RING_AT + _RING
_FAULT_AT = _OUTBOX_AT + outbox.SIZE  # last: Python minds no end when it says where it was
_SIZE = _FAULT_AT + _FAULT


class Posted(NamedTuple):
    """What a worker runs. Times are monotonic nanoseconds; `kill_at` 0 is never.

    `retry_after_us` is how long a run that has to be killed waits for its next try, -1 if that was
    the last; `limit_us` is its time limit.
    """

    claim: int
    started_at: int
    kill_at: int
    retry_after_us: int
    limit_us: int


class Board:
    """One end of a board. The node makes it; the worker attaches to its descriptor."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._memory = mmap.mmap(handle, _SIZE)
        with memoryview(self._memory) as memory:
            self._words = memory[:_RING_AT].cast("Q")  # half the time that struct takes
            self.outbox = Outbox(memory[_OUTBOX_AT:_FAULT_AT])

    @classmethod
    def new(cls) -> Board:
        """Return a new board."""
        handle = os.memfd_create("jobsched-board", os.MFD_CLOEXEC)
        try:
            os.ftruncate(handle, _SIZE)
            return cls(handle)
        except BaseException:
            os.close(handle)
            raise

    def close(self) -> None:
        """Let go of it."""
        self.outbox.close()
        self._words.release()
        self._memory.close()
        os.close(self.handle)

    # The worker's.

    def post(
        self, claim: int, started_at: int, kill_at: int = 0, retry_after_us: int = -1, limit_us: int = 0
    ) -> None:
        """Say what runs from now on, as `Posted` has it; its output begins anew."""
        _begun.pack_into(self._memory, 0, 0, started_at, kill_at, retry_after_us, limit_us, claim)

    def clear(self) -> None:
        """Say that nothing runs."""
        self._words[_CLAIM] = 0

    def write(self, data: bytes | memoryview) -> None:
        """Keep output, its last 16 KiB."""
        length = self._words[_LENGTH]
        for start in range(max(0, len(data) - _RING), len(data), _RING):
            part = data[start : start + _RING]
            place = (length + start) % _RING
            first = min(len(part), _RING - place)
            self._memory[_RING_AT + place : _RING_AT + place + first] = bytes(part[:first])
            self._memory[_RING_AT : _RING_AT + len(part) - first] = bytes(part[first:])
        self._words[_LENGTH] = length + len(data)

    def catch_faults(self) -> None:
        """Have Python write here where it was when it is killed by a fault of its own."""
        handle = os.open(f"/proc/self/fd/{self.handle}", os.O_RDWR | os.O_CLOEXEC)
        os.lseek(handle, _FAULT_AT, os.SEEK_SET)
        faulthandler.enable(handle, all_threads=False)

    # The node's.

    def ask_cancel(self, claim: int, stage: int) -> None:
        """Ask for the end of a run: kindly at stage 1, by an exception in any case at stage 2."""
        self._words[_STAGE] = stage
        self._words[_ASKED] = claim

    # Both.

    @property
    def posted(self) -> Posted:
        """What runs; where `claim` is 0, nothing, or another run begins: the rest does not count."""
        before = self._words[_CLAIM]
        *times, claim = _posted.unpack_from(self._memory, _POSTED_AT)
        return Posted(claim if claim == before else 0, *times)  # the rest may be of the run before

    def cancel_stage(self, claim: int) -> int:
        """Return how urgently a run is asked to end: 0 if it is not."""
        return self._words[_STAGE] if self._words[_ASKED] == claim else 0

    @property
    def has_output(self) -> bool:
        """Whether the job has written anything."""
        return self._words[_LENGTH] > 0

    def output(self) -> str:
        """Return the job's output; of a long one the end, and how much is missing."""
        length = self._words[_LENGTH]
        ring = self._memory[_RING_AT : _RING_AT + _RING]
        if length <= _RING:
            return ring[:length].decode(errors="backslashreplace")
        place = length % _RING
        text = (ring[place:] + ring[:place]).decode(errors="replace")
        return f"… {length - _RING:,} bytes left out …\n{text}"

    def fault(self) -> str:
        """Return where Python was when it died of a fault; empty if it did not."""
        with contextlib.suppress(OSError):
            data = os.pread(self.handle, _FAULT, _FAULT_AT)
            return data.partition(b"\0")[0].decode(errors="replace")
        return ""

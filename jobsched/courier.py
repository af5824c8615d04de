"""Carrying the requests of many threads together, so that they share commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from jobsched.store.base import Reply, Request

__all__ = ["Courier"]


class _Parcel:
    """A request on its way, and the thread that waits for its reply."""

    def __init__(self, request: Request, thread: int) -> None:
        self.request = request
        self.thread = thread
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def arrived(self) -> bool:
        return self.reply is not None or self.error is not None


class Courier:
    """Carries the requests of many threads together, so that they share commits.

    The first thread to come leads: it has its own request exchanged, and hands the lead to one of those who
    came meanwhile, which takes everything that has gathered, in one go. No thread of its own, no added delay.
    """

    def __init__(self, exchange: Callable[[Sequence[Request]], list[Reply]]) -> None:
        self._exchange = exchange
        self._lock = threading.Lock()
        self._waiting: list[_Parcel] = []  # any thread, under the lock
        self._leader = 0  # likewise: the thread that leads, or was woken to lead

    def call(self, request: Request) -> Reply:
        """Have one request applied; it is on disk on return."""
        thread, parcel = threading.get_ident(), None
        try:
            with self._lock:
                if self._leader:
                    parcel = _Parcel(request, thread)
                    self._waiting.append(parcel)
                else:
                    self._leader = thread
            if parcel is None:  # as where one thread dispatches: no more is done than has to be
                [reply] = self._exchange([request])
                return reply
            parcel.wake.acquire()
            if not parcel.arrived:
                self._lead()
        finally:  # an interrupted thread must not take the lead with it
            with self._lock:
                if parcel in self._waiting:
                    self._waiting.remove(parcel)
                if self._leader == thread:
                    self._bequeath()
        if parcel.error is not None:
            raise parcel.error
        assert parcel.reply is not None
        return parcel.reply

    def _bequeath(self) -> None:
        """Wake the next one to lead, if anybody waits. Under the lock."""
        self._leader = self._waiting[0].thread if self._waiting else 0
        if self._waiting:
            self._waiting[0].wake.release()

    def _lead(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            for parcel, reply in zip(batch, self._exchange([p.request for p in batch]), strict=True):
                parcel.reply = reply
        except Exception as error:  # noqa: BLE001 (each thread raises it as its own)
            for parcel in batch:
                parcel.error = error
        except BaseException:
            # Interrupted: the next leader sends the others' requests again, which is harmless.
            with self._lock:
                self._waiting[:0] = batch
            raise
        for parcel in batch:
            parcel.wake.release()

"""A worker as its node sees it: the socket, the tokens, and what it holds."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from jobsched import wire
from jobsched.board import Board
from jobsched.errors import WireError
from jobsched.framed import FramedSocket
from jobsched.job import State
from jobsched.store.base import Claim, GiveBack, Outcome

__all__ = ["Doom", "Held", "WorkerLink"]

_WORK_BYTES = 1 << 20  # of records in one frame
_ARRAY = 0xDD  # msgpack's byte for an array of up to 2^32 things

_decode_outbox = msgspec.msgpack.Decoder(list[Outcome | None]).decode


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claim handed out: enough to finish it, or to give it back."""

    job: bytes
    claim: int


class Doom(msgspec.Struct, frozen=True):
    """Why a worker is killed while it runs a job, and where that job goes; `retry_after_us` counts if
    that is `scheduled`. `pending` is a crash.
    """

    claim: int
    state: State
    cause: str
    retry_after_us: int = 0
    out_of_memory: bool = False


class WorkerLink(FramedSocket[wire.FromWorker]):
    """One worker process. All fields belong to the node's loop.

    `home` is the category that the balancer has assigned it to, `serving` the one whose jobs it
    holds: they differ while it is lent, or has just been moved. What it holds behind its running job may
    be of another category, `succeeding`, None where it is not. `progress_at` is the monotonic time
    at which it was last seen to take or end a job, `heard_at` that of its last message. `doom` is why
    the node has it killed: what is to become of the job that it runs.
    """

    def __init__(self, number: int, home: str, now: float, blocked: Callable[[WorkerLink], None]) -> None:
        self.number = number
        self.home = home
        self.serving: str | None = None
        self.succeeding: str | None = None
        self.is_ready = False
        self.is_leaving = False
        self.pid = 0  # until it is ready
        self.doom: Doom | None = None
        self.started_at = now
        self.progress_at = now
        self.heard_at = now
        self.held: deque[Held] = deque()
        with contextlib.ExitStack() as stack:  # which closes what was opened if the rest cannot be
            self.far_tokens, self._tokens = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, self.far_tokens)
            stack.callback(os.close, self._tokens)
            # A description of its own: non-blocking for us, blocking for the worker.
            own_side = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._taken_back = os.open(f"/proc/self/fd/{self.far_tokens}", own_side)
            stack.callback(os.close, self._taken_back)
            self.board = Board.new()
            stack.callback(self.board.close)
            near_end, self.far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.pop_all()
        super().__init__(near_end, f"worker {number & 0xFFFFFFFF}", wire.FromWorker, blocked)
        self._generation = 0
        self._ended: deque[Outcome | None] = deque()  # None: it comes over the socket
        self._long: deque[Outcome] = deque()

    @property
    def label(self) -> int:
        """The number that people see."""
        return self.number & 0xFFFFFFFF

    def let_go_of_far_ends(self) -> None:
        """Close the worker's ends here, once it has its own."""
        self.far_end.close()
        os.close(self.far_tokens)

    @property
    def is_idle(self) -> bool:
        """Whether it could start a job at once."""
        return self.is_ready and not self.is_leaving and not self.held

    @property
    def running(self) -> int:
        """The claim that the worker says to run; the first that it holds where it says none of them. The
        ends of those before it may be untold.
        """
        posted = self.board.posted.claim
        return posted if any(held.claim == posted for held in self.held) else self.held[0].claim

    def hand_out(self, claims: Sequence[Claim], category: str, now: float) -> None:
        """Give the worker jobs to run after those that it holds."""
        if not self.held:
            self.progress_at, self.serving = now, category
        elif category != self.serving:
            self.succeeding = category
        self.held.extend([Held(claim.job, claim.number) for claim in claims])
        for part in _parts(claims):
            self.send(wire.Work(part))
        with contextlib.suppress(BrokenPipeError):  # it died; its exit tells the rest
            os.write(self._tokens, bytes((self._generation,)) * len(claims))

    def revoke(self) -> list[GiveBack]:
        """Take back the jobs that have not started; the running one is left alone."""
        count = min(self._take_tokens(), len(self.held))
        if count == 0:
            return []
        self._generation = (self._generation + 1) % 256
        self.succeeding = None
        self.send(wire.Drop(self._generation, count))
        return [GiveBack(held.job, held.claim) for held in self._drop_last(count)]

    def by_category(self, runs: Sequence[Outcome]) -> Iterator[tuple[str, Sequence[Outcome]]]:
        """Yield the runs that it has ended just now, with the categories of their jobs."""
        if self.succeeding is not None:  # what the first of them was not of
            yield self.serving or self.home, runs[:1]
            self.serving, self.succeeding = self.succeeding, None
            runs = runs[1:]
        if runs:
            yield self.serving or self.home, runs

    @property
    def is_behind_another(self) -> bool:
        """Whether it is lent, and holds nothing of its own category yet."""
        return bool(self.held) and self.serving != self.home != self.succeeding

    def fall(self) -> tuple[Held | None, list[GiveBack]]:
        """After the worker's death: return the job that was running, and the others.

        What it had sent before must have been received already.
        """
        unstarted = self._drop_last(min(self._take_tokens(), len(self.held)))
        running = self.held.popleft() if self.held else None
        return running, [GiveBack(held.job, held.claim) for held in (*self.held, *unstarted)]

    def _take_tokens(self) -> int:
        """Read the tokens that the worker has not taken; nobody can take those any more."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._taken_back, 4096):
                count += len(data)
        return count

    def _drop_last(self, count: int) -> list[Held]:
        dropped = [self.held.pop() for _ in range(count)]
        dropped.reverse()
        return dropped

    def dismiss(self) -> None:
        """Have the worker leave after its running job. What it holds unstarted must be revoked."""
        if not self.is_leaving:
            self.is_leaving = True
            os.close(self._tokens)

    def receive(self) -> list[wire.Question | wire.Ready]:
        """Return the messages that have arrived; outcomes are for `ended`. Raises ConnectionResetError
        at the end of them, WireError when they are none.
        """
        return self._sorted(self.arrived())

    def receive_rest(self) -> list[wire.Question | wire.Ready]:
        """Return all that a dead worker had sent; what is no message ends it."""
        messages: list[wire.Question | wire.Ready] = []
        with contextlib.suppress(WireError):
            messages += self._sorted(self.remaining())
        with contextlib.suppress(WireError):
            self._empty_outbox(self.board.outbox.mark)
        return messages

    def _sorted(self, messages: Iterable[wire.FromWorker]) -> list[wire.Question | wire.Ready]:
        others: list[wire.Question | wire.Ready] = []
        for message in messages:
            if isinstance(message, wire.Filled):
                self._empty_outbox(message.mark)
            elif isinstance(message, wire.Done):
                if self._ended.count(None) == len(self._long):
                    raise WireError(f"{self._peer} sent an outcome that its outbox does not announce")
                self._long.append(message.outcome)
            else:
                others.append(message)
        return others

    def _empty_outbox(self, mark: int) -> None:
        count, data = self.board.outbox.take(mark)
        try:
            self._ended += _decode_outbox(bytes((_ARRAY,)) + count.to_bytes(4, "big") + data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"{self._peer} put what is no outcome into its outbox: {error}") from error

    def look(self) -> None:
        """Take what lies in the outbox since the last look, as its worker may be in a long job now.
        Raises WireError when it is none.
        """
        self._empty_outbox(self.board.outbox.note())

    def ended(self) -> Iterator[Outcome]:
        """Yield the outcomes that are complete, in the order of the runs."""
        while self._ended and (self._ended[0] is not None or self._long):
            yield self._ended.popleft() or self._long.popleft()

    def close(self) -> None:
        """Close everything; the worker is gone."""
        self.dismiss()
        super().close()
        os.close(self._taken_back)
        self.board.close()


def _parts(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Yield claims in as many frames as their records need."""
    part: list[Claim] = []
    size = 0
    for claim in claims:
        if part and size + len(claim.record) > _WORK_BYTES:
            yield part
            part, size = [], 0
        part.append(claim)
        size += len(claim.record)
    yield part

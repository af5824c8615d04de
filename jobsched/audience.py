"""Who hears of the node's events: a hook in this process, the hooks' process, and clients that listen.

Nobody can hold the node up. What is not taken is kept up to a limit; beyond it events are dropped and
counted, and whoever missed them is told so. While nobody listens, single jobs are not watched, but for
runs that went wrong: these, and all that is rare, stand among the last events that a client can ask for.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from jobsched import wire
from jobsched.clock import Clock
from jobsched.config import Config
from jobsched.errors import WireError
from jobsched.event import (
    Dropped,
    Event,
    JobCompleted,
    JobDispatched,
    JobGivenBack,
    JobQueued,
    JobStarted,
    NodeDraining,
    NodeStopped,
    WorkerLent,
    to_frame,
)
from jobsched.hook_link import Hooks
from jobsched.loop import Link, Loop
from jobsched.store.base import JobStore, Turn, TurnResult
from jobsched.store.moves import Watch
from jobsched.witness import Witness

__all__ = ["Audience", "Ear", "Tell", "untold"]

log = logging.getLogger(__name__)

_LAST = 1000
_MOST_UNSENT = 1 << 20  # bytes that wait for a client, and one part more
_MOST_UNSENT_HOOKS = 8 << 20  # likewise: a process has to be started before it takes any
_FAREWELL_S = 1.0  # for clients to take the last events
_LEAST_GRACE_S = 1.0  # for the hooks
_MOST_LISTENERS = 64
_MOST_NAMES = 1000
_PART = 500  # events in a frame
_FLEETING = frozenset({JobDispatched, JobQueued, JobStarted, JobCompleted, JobGivenBack, WorkerLent})

Hook = Callable[[Event], object]
Tell = Callable[..., None]
"""Notes an event of a type with these fields, all but `at`."""


def untold(kind: type[Event], **fields: Any) -> None:
    """Note nothing: nobody listens."""


class Ear(Link, Protocol):
    """The node's end of a connection to whoever listens."""

    @property
    def unsent(self) -> int:
        """How many bytes wait for it to take them."""
        ...

    def send(self, message: msgspec.Struct) -> None:
        """Send a message, or keep it to be sent later."""
        ...


class _Listener:
    """One that listens: to what, and how much it has missed since it last took something."""

    def __init__(self, ear: Ear, wanted: wire.Listen, most_unsent: int = _MOST_UNSENT) -> None:
        self.ear = ear
        self.wanted = wanted
        self._most_unsent = most_unsent
        self.missed = 0
        self._hears_all = not (wanted.kinds or wanted.categories or wanted.tasks)

    def chosen(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return those of some events that it wants."""
        return events if self._hears_all else [event for event in events if self._wants(event)]

    def _wants(self, event: Event) -> bool:
        wanted = self.wanted
        return (
            (not wanted.kinds or event.kind in wanted.kinds)
            and (not wanted.categories or getattr(event, "category", "") in wanted.categories)
            and (not wanted.tasks or getattr(event, "task", "") in wanted.tasks)
        )

    def tell(self, events: Sequence[Event], frame: msgspec.Raw | None = None) -> None:
        """Send events, at most a part; or count them as missed, while too much waits already."""
        if self.missed or self.ear.unsent > self._most_unsent:
            self.missed += len(events)
        elif events:
            self.ear.send(wire.Told(self.wanted.number, frame or to_frame(events)))

    def catch_up(self, at: int) -> None:
        """Say how much was missed, as soon as something is taken again."""
        if self.missed and self.ear.unsent <= self._most_unsent // 2:
            self.own_up(at)

    def own_up(self, at: int) -> None:
        """Say how much was missed."""
        missed, self.missed = self.missed, 0
        self.ear.send(wire.Told(self.wanted.number, to_frame([Dropped(at=at, count=missed)])))


class Audience:
    """Belongs to the node's loop. `note` takes what is no turn's; it is told at the next `step`.

    `hook` is called from the loop with every event.
    """

    def __init__(self, config: Config, loop: Loop, clock: Clock, hook: Hook | None = None) -> None:
        self._clock = clock
        self._hook = hook
        self._hooks = Hooks(config, loop) if config.hooks else None
        self._listeners: dict[Ear, _Listener] = {}
        self._last: deque[Event] = deque(maxlen=_LAST)
        self._noted: list[Event] = []
        self._until = 0.0  # monotonic: the end of the grace, once it has begun
        self._witness: Witness | None = None

    def open(self, store: JobStore) -> None:
        """Begin to see what is applied to a store."""
        self._witness = Witness(store.get)
        if self._hooks is not None:
            wanted = wire.Listen(0, follow=True)
            self._listeners[self._hooks] = _Listener(self._hooks, wanted, _MOST_UNSENT_HOOKS)
            self._hooks.step(self._clock.monotonic())

    @property
    def watch(self) -> Watch:
        """What the next turn is to tell of."""
        return Watch.ALL if self.is_heard else Watch.TROUBLE

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners) or self._hook is not None

    # Who listens.

    def join(self, ear: Ear, wanted: wire.Listen) -> None:
        """Tell somebody of the last events; or of those to come from now on, if it wants to follow.

        Raises WireError when it asks for too many names, or too many listen already.
        """
        if len(wanted.kinds) + len(wanted.categories) + len(wanted.tasks) > _MOST_NAMES:
            raise WireError(f"over {_MOST_NAMES:,} names of events to listen to")
        if wanted.follow and ear not in self._listeners and len(self._listeners) >= _MOST_LISTENERS:
            raise WireError(f"{_MOST_LISTENERS} listen to this node already, the most there may be")
        listener = _Listener(ear, wanted)
        last = [] if wanted.follow else listener.chosen(list(self._last))
        for part in _parts(last):
            listener.tell(part)
        if wanted.follow:
            self._listeners[ear] = listener
        else:
            ear.send(wire.Told(wanted.number, to_frame([]), last=True))

    def leave(self, ear: Ear) -> None:
        """Tell somebody no more."""
        self._listeners.pop(ear, None)

    # What there is to tell.

    def note(self, kind: type[Event], **fields: Any) -> None:
        """Note an event of a type with these fields."""
        if kind is NodeDraining:
            self._until = self._clock.monotonic() + fields["grace_s"]
        if kind not in _FLEETING or self.is_heard:
            self._noted.append(kind(at=self._clock.now(), **fields))

    def see(self, turn: Turn, result: TurnResult) -> None:
        """Note what a turn has done."""
        assert self._witness is not None
        self._noted.extend(self._witness.events(turn, result))
        if result.untold and turn.watch is Watch.ALL:
            self.note(Dropped, count=result.untold)

    def timeout_s(self, now: float) -> float:
        """Return the seconds until there is something to do; 0 with events to tell."""
        if self._noted:
            return 0.0
        return self._hooks.timeout_s(now) if self._hooks is not None else float("inf")

    def step(self, now: float) -> None:
        """Tell what was noted; and those who have missed something, how much."""
        if self._hooks is not None:
            self._hooks.step(now)
        for listener in list(self._listeners.values()):
            listener.catch_up(self._clock.now())
        if self._noted:
            events, self._noted = self._noted, []
            self._last.extend(event for event in events if type(event) not in _FLEETING)
            if self.is_heard:
                self._tell(events)

    def _tell(self, events: Sequence[Event]) -> None:
        for part in _parts(events):
            frame = to_frame(part)
            for listener in list(self._listeners.values()):
                chosen = listener.chosen(part)
                listener.tell(chosen, frame if chosen is part else None)
        if self._hook is not None:
            for event in events:
                self._call(event)

    def _call(self, event: Event) -> None:
        assert self._hook is not None
        try:
            self._hook(event)
        except Exception:
            log.exception("the node's hook failed at %s", event)

    # The end.

    def end(self, put_back: int) -> None:
        """Say that the node is done, after which nothing follows; give clients a second to take it."""
        now = self._clock.monotonic()
        self.step(now)
        leaving = [listener for ear, listener in self._listeners.items() if ear is not self._hooks]
        for listener in leaving:
            del self._listeners[listener.ear]
        self.note(NodeStopped, put_back=put_back)
        farewell = list(self._noted)
        self.step(now)
        for listener in leaving:  # that it is the last thing is told to those too that have missed others
            if listener.missed:
                listener.own_up(self._clock.now())
            chosen = listener.chosen(farewell)
            listener.ear.send(wire.Told(listener.wanted.number, to_frame(chosen), last=True))
        _flush([listener.ear for listener in leaving])

    def close(self, is_hurried: Callable[[], bool]) -> None:
        """Let the hooks be called with all events, for what is left of the grace, and end them."""
        if self._hooks is not None:
            self._hooks.close(max(self._until, time.monotonic() + _LEAST_GRACE_S), is_hurried)


def _flush(ears: Sequence[Ear]) -> None:
    """Have what waits taken, for a second at most."""
    deadline = time.monotonic() + _FAREWELL_S
    while (rest := deadline - time.monotonic()) > 0:
        waiting = [ear for ear in ears if ear.has_unsent]
        if not waiting:
            return
        poll = select.poll()
        for ear in waiting:
            poll.register(ear, select.POLLOUT)
        poll.poll(rest * 1000)
        for ear in waiting:
            ear.flush()


def _parts(events: Sequence[Event]) -> Iterable[Sequence[Event]]:
    for start in range(0, len(events), _PART):
        yield events[start : start + _PART]

"""A turn applied with the last of the room: in small transactions, which need few new pages.

LMDB copies each page that it changes, so a turn that touches many needs as many more, even to delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from jobsched.job import State
from jobsched.store.base import Accepted, Request, Turn, TurnResult
from jobsched.store.retention import Prune

__all__ = ["apply_in_parts"]

_PART = 16  # outcomes or deletions in one transaction

Apply = Callable[[Turn, Mapping[int, str]], TurnResult]
T = TypeVar("T")


def apply_in_parts(apply: Apply, turn: Turn, refused: Mapping[int, str]) -> TurnResult:
    """Apply a turn but for the requests that are refused, whose places come with the reason.

    Outcomes do not depend on each other; those of a part that fails are known by their claims when
    they are repeated. Nor do deletions, which make room. Raises what `apply` does.
    """
    watch = turn.watch
    before = [apply(Turn(now=turn.now, outcomes=part, watch=watch), {}) for part in _parts(turn.outcomes)]
    before += [apply(Turn(now=turn.now, give_back=part, watch=watch), {}) for part in _parts(turn.give_back)]
    requests = list(turn.requests)
    deleted: dict[int, Accepted] = {}
    for place, request in enumerate(requests):
        if request.delete and not _changes_more(request):
            requests[place] = Request()
            deleted[place] = Accepted(_delete(apply, request.delete, turn.now))
    pruned = sum(_prune(apply, order, turn.now) for order in turn.prune)
    rest = Turn(
        now=turn.now,
        requests=requests,
        release=min(turn.release, _PART),
        slots=[msgspec.structs.replace(slot, limit=min(1, slot.limit)) for slot in turn.slots[:_PART]],
        begun=turn.begun,
        watch=watch,
    )
    result = apply(rest, refused)
    replies = [deleted.get(place, reply) for place, reply in enumerate(result.replies)]
    return msgspec.structs.replace(
        result,
        lost=[claim for part in (*before, result) for claim in part.lost],
        replies=replies,
        pruned=pruned,
        moves=[move for part in (*before, result) for move in part.moves],
        untold=sum(part.untold for part in (*before, result)),
    )


def _changes_more(request: Request) -> bool:
    """Say whether a request asks for anything beside deletions: it is applied whole then."""
    more = (request.jobs, request.cancel, request.retry, request.pause, request.resume, request.schedules)
    return any(more)


def _delete(apply: Apply, job_ids: Sequence[bytes], now: int) -> list[State | None]:
    """Delete jobs; return the state of each, None where it is gone."""
    states: list[State | None] = []
    for part in _parts(job_ids):
        [reply] = apply(Turn(now=now, requests=[Request(delete=part)]), {}).replies
        assert isinstance(reply, Accepted)
        states += reply.states
    return states


def _prune(apply: Apply, order: Prune, now: int) -> int:
    """Carry out an order; return how many jobs are gone."""
    pruned = 0
    while pruned < order.limit:
        part = msgspec.structs.replace(order, limit=min(_PART, order.limit - pruned))
        count = apply(Turn(now=now, prune=[part]), {}).pruned
        pruned += count
        if count < part.limit:
            break
    return pruned


def _parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), _PART):
        yield things[start : start + _PART]

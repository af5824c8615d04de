"""Many jobs of one draft, one for each set of arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from jobsched.codec import RecordForm
from jobsched.draft import Draft
from jobsched.errors import ArgumentError, PayloadTooLarge
from jobsched.job_id import new_id, new_ids
from jobsched.options import checked_args, checked_kwargs
from jobsched.prepared import PreparedJob, new_job
from jobsched.request_size import MAX_REQUEST_BYTES, MAX_REQUEST_JOBS
from jobsched.store.base import NewJob

__all__ = ["Arguments", "new_jobs"]

Arguments = Sequence[Any] | Mapping[str, Any]
"""Those of one job by position, or those by name."""

_PART = 200  # jobs that are made together: more are hardly faster, and may be long


def new_jobs(
    draft: Draft, each: Iterable[Arguments], now: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[list[NewJob]]:
    """Yield the jobs of a dispatch at a time (UTC microseconds), as many together as a request holds.

    `args` and `kwargs` are arguments that all of them have beside their own, before these. Raises
    ArgumentError and PayloadTooLarge, which name the place of what is wrong.
    """
    together: list[NewJob] = []
    size = 0
    for part in _parts(draft, each, now, args, kwargs):
        added = sum([len(job.record) for job in part])
        if len(together) + len(part) <= MAX_REQUEST_JOBS and size + added <= MAX_REQUEST_BYTES:
            together += part
            size += added
            continue
        for job in part:
            if len(together) == MAX_REQUEST_JOBS or size + len(job.record) > MAX_REQUEST_BYTES:
                yield together
                together, size = [], 0
            together.append(job)
            size += len(job.record)
    yield together


def _parts(
    draft: Draft, each: Iterable[Arguments], now: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[list[NewJob]]:
    mark = new_id()
    like = new_job(PreparedJob(mark, draft, mark, b"", draft.common_terms), now)
    form = RecordForm(like.record, mark)
    task, category, priority, due_at, conflict = (
        like.task, like.category, like.priority, like.due_at, like.on_conflict,
    )  # fmt: skip
    rest, place = iter(each), 0
    while part := list(islice(rest, _PART)):
        packed = None if args or kwargs or draft.unique else draft.packed_plainly(part)
        if packed is None:
            pairs = _packed(draft, part, place, args, kwargs)
            packed = [b"".join(pair) for pair in pairs]
            terms = [draft.expiring(draft.terms(*pair), now) for pair in pairs]
        else:
            terms = [like.terms] * len(part)
        job_ids = new_ids(len(part))
        yield [
            NewJob(job_id, task, category, priority, due_at, record, own, conflict)
            for job_id, record, own in zip(job_ids, form.encode_all(job_ids, packed), terms, strict=True)
        ]
        place += len(part)


def _packed(
    draft: Draft, part: Sequence[Any], place: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[bytes, bytes]]:
    """Return the arguments of some jobs encoded, one by one; `place` is that of the first."""
    packed: list[tuple[bytes, bytes]] = []
    try:
        for given in part:
            if isinstance(given, Mapping):
                packed.append(draft.packed(args, {**kwargs, **checked_kwargs(given)}))
            else:
                packed.append(draft.packed((*args, *checked_args(given)), kwargs))
    except ArgumentError as error:
        raise ArgumentError(f"arguments[{place + len(packed)}]: {error}") from None
    except PayloadTooLarge as error:
        error.add_note(f"these are arguments[{place + len(packed)}]")
        raise
    return packed

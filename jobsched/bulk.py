"""Many jobs of one draft, one for each set of arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from jobsched.codec import RecordForm
from jobsched.draft import Draft
from jobsched.errors import ArgumentError, PayloadTooLarge
from jobsched.job_id import new_id, new_ids
from jobsched.options import checked_args, checked_kwargs
from jobsched.prepared import PreparedJob, new_job
from jobsched.request_size import MAX_REQUEST_BYTES, MAX_REQUEST_JOBS
from jobsched.store.alike import AlikeJobs, joined, records_of
from jobsched.store.base import NewJob

__all__ = ["Arguments", "new_jobs"]

Arguments = Sequence[Any] | Mapping[str, Any]
"""Those of one job by position, or those by name."""

_PART = 200  # jobs that are made together: more are hardly faster, and may be long


def new_jobs(
    draft: Draft, each: Iterable[Arguments], now: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Sequence[NewJob]]:
    """Yield the jobs of a dispatch at a time (UTC microseconds), as many together as a request holds.

    `args` and `kwargs` are arguments that all of them have beside their own, before these. Raises
    ArgumentError and PayloadTooLarge, which name the place of what is wrong.
    """
    together: list[Sequence[NewJob]] = []
    count = size = 0
    for part in _parts(draft, each, now, args, kwargs):
        fits = count + len(part) <= MAX_REQUEST_JOBS and size + _size(part) <= MAX_REQUEST_BYTES
        for piece in [part] if fits else [part[place : place + 1] for place in range(len(part))]:
            if not fits and (count == MAX_REQUEST_JOBS or size + _size(piece) > MAX_REQUEST_BYTES):
                yield joined(together)
                together, count, size = [], 0, 0
            together.append(piece)
            count += len(piece)
            size += _size(piece)
    yield joined(together)


def _size(jobs: Sequence[NewJob]) -> int:
    return sum(map(len, records_of(jobs)))


def _parts(
    draft: Draft, each: Iterable[Arguments], now: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Sequence[NewJob]]:
    mark = new_id()
    first = new_job(PreparedJob(mark, draft, mark, b"", draft.common_terms), now)
    form, like = RecordForm(first.record, mark), msgspec.structs.replace(first, record=b"")
    rest, place = iter(each), 0
    while part := list(islice(rest, _PART)):
        packed = None if args or kwargs or draft.unique else draft.packed_plainly(part)
        if packed is None:
            pairs = _packed(draft, part, place, args, kwargs)
            packed = [b"".join(pair) for pair in pairs]
        ids = new_ids(len(part))
        jobs = AlikeJobs(like, ids, form.encode_all(ids, packed))
        if draft.unique:
            terms = [draft.expiring(draft.terms(*pair), now) for pair in pairs]
            yield [msgspec.structs.replace(job, terms=own) for job, own in zip(jobs, terms, strict=True)]
        else:
            yield jobs
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

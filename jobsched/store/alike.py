"""New jobs that differ in nothing but their ids and records, as those of a dispatch in bulk do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import msgspec

from jobsched.store.base import NewJob

__all__ = ["AlikeJobs", "at_once", "ids_of", "joined", "kinds", "records_of", "with_terms"]


class AlikeJobs(Sequence[NewJob]):
    """Jobs that are `like` one, but for their `ids` and `records`.

    They are jobs to whoever goes through them. To make each of many takes longer than all else on their
    way to a store: the functions below tell what is mostly asked of jobs, whatever holds them, without.
    Raises ValueError unless there is a record for each id.
    """

    __slots__ = ("ids", "like", "records")

    def __init__(self, like: NewJob, ids: Sequence[bytes], records: Sequence[bytes]) -> None:
        if len(ids) != len(records):
            raise ValueError(f"{len(ids):,} ids of jobs with {len(records):,} records")
        self.like = like
        self.ids = ids
        self.records = records

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[NewJob]:
        return map(self._job, self.ids, self.records)

    @overload
    def __getitem__(self, place: int) -> NewJob: ...
    @overload
    def __getitem__(self, place: slice) -> AlikeJobs: ...
    def __getitem__(self, place: int | slice) -> NewJob | AlikeJobs:
        if isinstance(place, slice):
            return AlikeJobs(self.like, self.ids[place], self.records[place])
        return self._job(self.ids[place], self.records[place])

    def _job(self, job_id: bytes, record: bytes) -> NewJob:
        return msgspec.structs.replace(self.like, id=job_id, record=record)


def joined(parts: Sequence[Sequence[NewJob]]) -> Sequence[NewJob]:
    """Return the jobs of several parts, one behind another."""
    alike = [part for part in parts if isinstance(part, AlikeJobs)]
    if len(parts) == 1:
        return parts[0]
    if alike and len(alike) == len(parts) and all(part.like == alike[0].like for part in alike):
        ids = [job_id for part in alike for job_id in part.ids]
        return AlikeJobs(alike[0].like, ids, [record for part in alike for record in part.records])
    return [job for part in parts for job in part]


def ids_of(jobs: Sequence[NewJob]) -> Sequence[bytes]:
    """Return the ids of jobs, in their order."""
    return jobs.ids if isinstance(jobs, AlikeJobs) else [job.id for job in jobs]


def records_of(jobs: Sequence[NewJob]) -> Sequence[bytes]:
    """Return the records of jobs, in their order."""
    return jobs.records if isinstance(jobs, AlikeJobs) else [job.record for job in jobs]


def kinds(jobs: Sequence[NewJob]) -> Sequence[NewJob]:
    """Return jobs of all the kinds that there are among some, by all but id and record."""
    if isinstance(jobs, AlikeJobs):
        return [jobs.like] if jobs else []
    return jobs


def with_terms(jobs: Sequence[NewJob]) -> Iterable[NewJob]:
    """Return those of some jobs that have terms."""
    if isinstance(jobs, AlikeJobs) and jobs.like.terms is None:
        return ()
    return (job for job in jobs if job.terms is not None)


def at_once(jobs: Sequence[NewJob]) -> Counter[str]:
    """Count by category those of some jobs that are due at once."""
    if isinstance(jobs, AlikeJobs):
        return Counter() if jobs.like.due_at else Counter({jobs.like.category: len(jobs)})
    return Counter([job.category for job in jobs if not job.due_at])

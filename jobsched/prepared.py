"""A job that is checked and encoded, and not yet dispatched."""

from __future__ import annotations

import msgspec

from jobsched.clock import MICROSECONDS
from jobsched.codec import encode_record
from jobsched.definition import TaskDefinition
from jobsched.job import NO_TERMS, JobRecord, Terms
from jobsched.store.base import NewJob
from jobsched.terms import ConcurrencyLimit, Unique, key_limit, unique_key

__all__ = ["PreparedJob", "new_job", "terms_of"]


class PreparedJob(msgspec.Struct, frozen=True, gc=False):
    """A job ready to be dispatched, with others or alone. `delay_s` counts from its dispatch."""

    id: bytes
    task: str
    category: str
    priority: int
    delay_s: float
    at: int
    args: bytes
    kwargs: bytes
    name: str | None
    max_retries: int | None
    timeout_s: float | None
    expires_in_s: float | None
    by_name: bool
    unique: Unique | None
    terms: Terms


def new_job(job: PreparedJob, now: int) -> NewJob:
    """Return the job as a request carries it. `now` is in UTC microseconds."""
    record = JobRecord(
        job.id, job.task, job.category, job.priority, now, msgspec.Raw(job.args), msgspec.Raw(job.kwargs),
        job.name, job.max_retries, job.timeout_s, job.by_name,
    )  # fmt: skip
    due_at = job.at or (now + int(job.delay_s * MICROSECONDS) if job.delay_s else 0)
    terms = job.terms
    if job.expires_in_s is not None:
        expires_at = now + int(job.expires_in_s * MICROSECONDS)
        terms = msgspec.structs.replace(terms, expires_at=expires_at, is_partial=job.by_name)
    return NewJob(
        job.id, job.task, job.category, job.priority, due_at, encode_record(record),
        None if terms is NO_TERMS or terms == NO_TERMS else terms,
        job.unique.on_conflict if job.unique else "keep",
    )  # fmt: skip


def terms_of(
    definition: TaskDefinition | None,
    task: str,
    packed: tuple[bytes, bytes],
    unique: Unique | None,
    limit: ConcurrencyLimit | None,
    *,
    at_most_once: bool | None,
) -> Terms:
    """Return the terms of a job, but for its expiry."""
    terms = definition.terms() if definition else NO_TERMS
    if unique is None and limit is None and at_most_once is None:
        return terms
    return Terms(
        at_most_once=terms.at_most_once if at_most_once is None else at_most_once,
        unique=b"" if unique is None else unique_key(task, unique, b"".join(packed)),
        frees_at_start=unique is not None and unique.until == "start",
        limits=terms.limits if limit is None else (*terms.limits, key_limit(limit)),
        is_partial=definition is None,
    )

"""A job that is checked and encoded, and not yet dispatched."""

from __future__ import annotations

import msgspec

from jobsched.codec import encode_record
from jobsched.draft import Draft
from jobsched.job import JobRecord, Terms
from jobsched.store.base import NewJob

__all__ = ["PreparedJob", "new_job"]


class PreparedJob(msgspec.Struct, frozen=True, gc=False):
    """A job ready to be dispatched, with others or alone."""

    id: bytes
    draft: Draft
    args: bytes
    kwargs: bytes
    terms: Terms

    @property
    def task(self) -> str:
        """The task's name."""
        return self.draft.task

    @property
    def category(self) -> str:
        """The category's name."""
        return self.draft.category


def new_job(job: PreparedJob, now: int) -> NewJob:
    """Return the job as a request carries it. `now` is in UTC microseconds."""
    draft = job.draft
    task, category, priority, unique = draft.task, draft.category, draft.priority, draft.unique
    record = JobRecord(
        job.id, task, category, priority, now, msgspec.Raw(job.args), msgspec.Raw(job.kwargs),
        draft.name, draft.max_retries, draft.timeout_s, draft.definition is None,
    )  # fmt: skip
    return NewJob(
        job.id, task, category, priority, draft.due_at(now), encode_record(record),
        draft.expiring(job.terms, now), unique.on_conflict if unique else "keep",
    )  # fmt: skip

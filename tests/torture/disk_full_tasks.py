"""A task that leaves nothing on the disk but what its node writes."""

from jobsched import task


@task
def swallow(payload: bytes) -> int:
    return len(payload)

"""Tasks of a node under the recorder: each run says in the log that it has started."""

import os
from pathlib import Path

from write_log import Noted, note

from jobsched import Backoff, current_job, dispatch, task
from jobsched.job_id import parse_id


def _note_start() -> None:
    note(Path(os.environ["TORTURE_LOG"]), Noted(started=[parse_id(current_job().id)]))


@task
def noted(payload: bytes) -> bytes:
    _note_start()
    return payload


@task(max_retries=3, backoff=Backoff(base=0.02, jitter=0))
def noted_retry(payload: bytes) -> int:
    _note_start()
    if current_job().attempt < 3:
        raise ValueError(payload.hex())
    return len(payload)


@task
def noted_parent(payload: bytes, category: str) -> str:
    _note_start()
    return dispatch("power_cut_tasks:noted", category, args=(payload,)).id

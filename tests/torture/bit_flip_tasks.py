"""A task that says what it was called with."""

import os
import zlib
from pathlib import Path

from jobsched import current_job, task

RAN = Path(__file__).with_name("ran")


@task
def say(label: str, payload: bytes) -> int:
    line = f"{current_job().id} {label} {zlib.crc32(payload)}\n"
    handle = os.open(RAN, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.encode())
    os.close(handle)
    return len(payload)

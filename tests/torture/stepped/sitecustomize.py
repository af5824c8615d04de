"""Steps the wall clock of every process of a node: the file named by CLOCK_FILE says by how much.

With this folder on PYTHONPATH. The monotonic clock is not stepped: nor is it when a clock is set.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from jobsched.clock import SystemClock


def stepped(path: Path) -> None:
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    def now(_: SystemClock) -> int:
        return time.time_ns() // 1000 + struct.unpack("<q", offset[:8])[0]

    SystemClock.now = now


if "CLOCK_FILE" in os.environ:
    stepped(Path(os.environ["CLOCK_FILE"]))

"""`jobsched`, whose node waits before it commits what journals bring and can start at once, until there is
the file that AWAITED names. With FAILS set, the first such turn is not committed at all.
"""

import os
import time
from pathlib import Path

from jobsched.cli import main
from jobsched.errors import NotCommitted
from jobsched.store.base import Turn, TurnResult
from jobsched.store.lmdb import LmdbStore

PATIENCE_S = 30.0
failures = [NotCommitted("the disk has failed")] * bool(os.environ.get("FAILS"))


def slow(store: LmdbStore, turn: Turn) -> TurnResult:
    if any(request.taken and not job.due_at for request in turn.requests for job in request.jobs):
        awaited, deadline = Path(os.environ["AWAITED"]), time.monotonic() + PATIENCE_S
        while not awaited.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        if failures:
            raise failures.pop()
    return apply(store, turn)


apply, LmdbStore.apply = LmdbStore.apply, slow

if __name__ == "__main__":
    main()

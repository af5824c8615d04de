"""Clients under the recorder: `python power_cut_clients.py CONFIG LOG SEED` dispatches some jobs one by one,
waits for a few, and notes each answer. Preloaded with record_writes.c, as it writes a journal of its own.
"""

import random
import sys
from pathlib import Path

from write_log import Noted, note

from jobsched import Dispatcher
from jobsched.errors import JobFailed
from jobsched.job_id import parse_id

JOBS = 120
_SIZES = (8, 8, 100, 100, 400, 2500)


def main(config: Path, log: Path, seed: int) -> None:
    rng = random.Random(seed)
    dispatcher = Dispatcher.from_config(config)
    for _ in range(JOBS):
        task = rng.choice(("noted", "noted", "noted", "noted_retry", "noted_parent"))
        category = rng.choice(("mail", "reports"))
        payload = rng.randbytes(rng.choice(_SIZES))
        args = (payload, "mail") if task == "noted_parent" else (payload,)
        delay = rng.choice((0, 0, 0, 0.05, 3600))
        job = dispatcher.dispatch(f"power_cut_tasks:{task}", category, delay, args=args)
        note(log, Noted(accepted=[parse_id(job.id)]))
        if not delay and rng.random() < 0.05:
            try:
                job.result(timeout=30)
            except JobFailed:
                continue
            note(log, Noted(completed=[parse_id(job.id)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

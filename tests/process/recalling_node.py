"""`jobsched`, whose node recalls in every turn whatever its workers have not started."""

from collections.abc import Mapping

from jobsched.cli import main
from jobsched.pool import Pool
from jobsched.store.base import GiveBack


def recall(pool: Pool, _waiting: Mapping[str, int], _now: float) -> list[GiveBack]:
    return [back for worker in pool.workers.values() for back in worker.revoke()]


Pool.recall = recall

if __name__ == "__main__":
    main()

"""One category's supervisor: how many workers, how much each is given, and when a dead one is
replaced. Rules over plain state; the pool owns the processes.
"""

from __future__ import annotations

from jobsched.config import CategoryConfig
from jobsched.rate import Bucket
from jobsched.worker_link import WorkerLink

__all__ = ["Supervisor"]

_AHEAD_LIMIT = 255
_LEAST_WINDOW_S = 0.002
_SHORT_IN_COMMITS = 100
_WEIGHT = 0.05  # of the newest run in the moving average
_FREE_DEATHS = 1
_BACKOFF_S = 0.1
_BACKOFF_CAP_S = 30.0


class Supervisor:
    """State and rules of one category. Belongs to the node's loop.

    `target` is the number of workers that the balancer has assigned; `mean_run_s` is a moving
    average over the category's runs, None until the first.
    """

    def __init__(self, name: str, settings: CategoryConfig) -> None:
        self.name = name
        self.settings = settings
        self.target = 0
        self.mean_run_s: float | None = None
        self.deaths = 0  # since a job last ended, or another one was the culprit
        self._culprit: bytes | None = None
        self._died_at = 0.0
        self.restart_at = 0.0  # monotonic; no worker is started before
        self._bucket = Bucket(settings.rate) if settings.rate else None

    def ran(self, seconds: float, count: int = 1) -> None:
        """Note how long a run took, or each of some on the average."""
        mean = self.mean_run_s
        self.mean_run_s = seconds if mean is None else seconds + (mean - seconds) * (1 - _WEIGHT) ** count
        self.deaths = 0

    def starts_left(self, now: float) -> int | None:
        """Return how many jobs may start now by the category's rate, None without one."""
        return self._bucket.room(now) if self._bucket else None

    def started(self, count: int, now: float) -> None:
        """Note that jobs were handed out."""
        if self._bucket is not None:
            self._bucket.take(count, now)

    def wait_s(self, now: float) -> float:
        """Return the seconds until the category's rate lets a job start."""
        return self._bucket.wait_s(now) if self._bucket else 0.0

    def died(self, now: float, started_at: float, job: bytes | None = None) -> float:
        """Note that a worker died before its time, while it ran `job` if any; return the seconds until
        it may be replaced. Times are monotonic.

        The first is replaced at once. After that each waits twice as long as the one before, until
        a job ends or another job kills. Workers that die together, none started since another's death,
        count as one. A crash loop must not take the machine from the other
        categories, nor a few deadly jobs, which are quarantined soon, hold up the good ones.
        """
        if job is not None and job != self._culprit:
            self.deaths = 0
        self._culprit = job
        self.deaths += self.deaths == 0 or started_at > self._died_at
        self._died_at = now
        wait = 0.0
        if self.deaths > _FREE_DEATHS:
            wait = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** min(self.deaths - _FREE_DEATHS - 1, 16))
        self.restart_at = now + wait
        return wait

    def rest_s(self, ran_s: float) -> float:
        """Return for how many seconds a job is likely to go on that has run for so long: the rest of
        the mean, and once over it as long again.
        """
        mean = self.mean_run_s or 0.0
        return mean - ran_s if ran_s < mean else ran_s

    def window_s(self, commit_s: float) -> float:
        """Return how many seconds of work a worker may hold ahead."""
        return max(_LEAST_WINDOW_S, 2 * commit_s)

    def room(self, worker: WorkerLink, now: float, commit_s: float) -> int:
        """Return how many more jobs a worker may be given.

        Short jobs are given ahead, so that the worker does not wait for a commit between two of
        them. A worker that is stuck in a long one is given no more: others can run them.
        """
        if not worker.held:
            return 1 + self._ahead(commit_s)
        if now - worker.progress_at > self.window_s(commit_s):
            return 0
        return max(0, 1 + self._ahead(commit_s) - len(worker.held))

    def is_short(self, commit_s: float) -> bool:
        """Say whether its jobs are so short that some are given ahead."""
        return self._ahead(commit_s) > 0

    def _ahead(self, commit_s: float) -> int:
        mean = self.mean_run_s
        if self._bucket is not None:
            return 0  # the rate counts what is handed out, so that has to start at once
        if mean is None or mean > _SHORT_IN_COMMITS * commit_s:
            return 0
        return max(1, min(_AHEAD_LIMIT, int(self.window_s(commit_s) / max(mean, 1e-6))))

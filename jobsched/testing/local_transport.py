"""The way from a dispatcher to the node of its app: both are here."""

from __future__ import annotations

from collections.abc import Sequence

from jobsched.store.base import Reply, Request, StoredJob
from jobsched.store.schedule_query import Findings, FiringQuery, ScheduleQuery, findings
from jobsched.testing.local_node import LocalNode
from jobsched.testing.waiting import run_until_ended

__all__ = ["LocalTransport"]


class LocalTransport:
    """A `Transport` whose waiting runs what is waited for. `node` is the app's to replace."""

    node: LocalNode

    def exchange(self, requests: Sequence[Request]) -> list[Reply]:
        """Have requests applied."""
        return self.node.exchange(requests)

    def look(self, job_id: bytes, timeout_s: float | None) -> StoredJob | None:
        """Return a job; with a timeout, run what is due until it has ended, and let time pass up to the
        timeout for what falls due then. Without end (None) no time passes: raises WouldWait where nothing
        that is due now ends the job.
        """
        if timeout_s == 0:
            return self.node.store.get(job_id)
        return run_until_ended(self.node, job_id, timeout_s)

    def find(self, query: ScheduleQuery | FiringQuery) -> Findings:
        """Return what the store has of schedules."""
        return findings(self.node.store, query)

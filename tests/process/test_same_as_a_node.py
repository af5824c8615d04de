"""What an app of the testing kit makes of a day's work is what a node makes of it."""

import re

import compared_tasks as tasks

from jobsched import Unique
from jobsched.codec import decode_record, decode_result
from jobsched.job_id import parse_id
from jobsched.store.base import Query
from jobsched.testing import LocalApp


def feed(jobs):
    """Dispatch something of everything; return the jobs."""
    found = [jobs.dispatch(tasks.end_as, args=(how,)) for how in ENDS]
    found += [jobs.dispatch(task) for task in (tasks.snooze, tasks.once, tasks.wait, tasks.cancel_itself)]
    found += [jobs.dispatch(tasks.spread, args=(atomic,)) for atomic in (True, False)]
    found += [jobs.dispatch(tasks.answer, "reports", delay, args=("delayed",)) for delay in (0.05, 0.1)]
    found += [jobs.dispatch(tasks.answer, args=(n,), unique=Unique(key="k")) for n in "12"]
    found += [jobs.dispatch(tasks.answer, args=("too late",), delay=0.05, expires_in=0.01)]
    found += jobs.dispatch_many([jobs.prepare("no:where", "mail", args=(1,))], allow_unknown=True)
    found[-4].cancel()
    return found


ENDS = ["completed", "failed", "ruled out", "retried", "discarded", "unkept"]


def ends(store, jobs):
    """Return what became of the jobs: those dispatched, in their order, and those by other jobs."""
    page = store.find(Query(limit=200))
    ours = [parse_id(job.id) for job in jobs]
    others = [stored.id for stored in page.jobs if stored.id not in set(ours)]
    return [told(store.get(job)) for job in ours], sorted((told(store.get(job)) for job in others), key=repr)


def told(stored):
    status, record = stored.status, decode_record(stored.record)
    cause = cause_of(stored.error)
    tries = [(a.attempt, str(a.state), cause_of(a.error), a.log) for a in stored.attempts]
    result = None if stored.result is None else decode_result(stored.result)
    return (
        record.task, status.category, str(status.state), status.attempt, status.crashes, status.interruptions,
        cause, result, tries,
    )  # fmt: skip


def cause_of(error):
    """Return why a run did not complete, without the names of all tasks that its process knows."""
    return re.split("; known|, did you mean", error.cause)[0] if error else None


def test_an_app_and_a_node_end_the_same_jobs_alike(project):
    project.bring("compared_tasks")
    project.configure({"mail": {}, "reports": {}}, workers=3, tasks=["compared_tasks"])
    jobs = feed(project.dispatcher())
    project.run_until_idle()
    with project.store() as store:
        by_node = ends(store, jobs)
    with LocalApp(project.config) as app, app.installed():
        jobs = feed(app.dispatcher)
        app.run_due("1m")
        by_app = ends(app.dispatcher._transport.node.store, jobs)
    assert by_app == by_node
    states = [state for _, _, state, *_ in by_node[0]]
    assert set(states) == {"completed", "failed", "cancelled", "parked"}
    assert len(by_node[1]) == 5

"""A task that does at each run what its argument says."""

from collections import Counter

from jobsched import Backoff, Discard, Retry, Snooze, current_job, task

_runs = Counter()  # by job


@task(backoff=Backoff(base=10, factor=2, jitter=0))
def scripted(script):
    me = current_job()
    step = script[min(_runs[me.id], len(script) - 1)]
    _runs[me.id] += 1
    match step:
        case "fail":
            raise ValueError(step)
        case "retry":
            raise Retry(after=30)
        case "snooze":
            raise Snooze(60)
        case "discard":
            raise Discard(step)
    return me.attempt

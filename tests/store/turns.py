"""Short words for the turns that the contract's tests are made of."""

from jobsched.job import JobError, State
from jobsched.store.base import GiveBack, Outcome, Query, Request, Slot, Turn
from jobsched.transitions import CRASH_LIMIT

NOW = 1_000_000
BROKEN = JobError("ValueError: no", "Traceback …")
SETTLED = [s for s in State if s not in (State.SCHEDULED, State.PENDING, State.IN_PROGRESS)]


def add(store, *jobs, now=NOW):
    """Add jobs with one request."""
    return store.apply(Turn(now=now, requests=[Request(jobs=jobs)]))


def claim(store, limit=1, *, category="mail", worker=1, now=NOW):
    """Claim up to `limit` jobs of a category for one worker."""
    return store.apply(Turn(now=now, slots=[Slot(category, worker, limit)])).claims


def outcome(held, state=State.COMPLETED, *, ended_at=NOW + 5, due_at=0, **rest):
    """Return an outcome of a claim, with what that state carries."""
    done = state is State.COMPLETED
    result, error = (b"\x2a", None) if done else (None, BROKEN)
    return Outcome(held.job, held.number, state, ended_at - 2, ended_at, result, error, due_at, **rest)


def finish(store, *outcomes, now=NOW + 5):
    return store.apply(Turn(now=now, outcomes=outcomes))


def cancel(store, *ids, now=NOW):
    """Cancel jobs and return the states that the store answers."""
    [reply] = store.apply(Turn(now=now, requests=[Request(cancel=ids)])).replies
    return reply.states


def ask(store, *, now=NOW, **changes):
    """Apply one request and return the reply to it."""
    [reply] = store.apply(Turn(now=now, requests=[Request(**changes)])).replies
    return reply


def give_back(store, held, *, interrupted=False, now=NOW):
    """Undo a claim."""
    return store.apply(Turn(now=now, give_back=[GiveBack(held.job, held.number, interrupted)]))


def counts(store, category="mail"):
    """Return a category's counts that are not zero."""
    found = store.stats()[category]
    return {state: found[state] for state in State if found[state]}


def status(store, job):
    return store.get(job.id).status


def pages(store, query):
    """Return the ids on all pages of a query, a list for each page."""
    found, after = [], b""
    while after is not None:
        page = store.find(Query(state=query.state, category=query.category, limit=query.limit, after=after))
        found.append([job.id for job in page.jobs])
        after = page.next
    return found


def listed(store, state=None, category=None, limit=50):
    return [i for page in pages(store, Query(state=state, category=category, limit=limit)) for i in page]


def ids(jobs):
    return [job.id for job in jobs]


def put_into(store, new_job, state, *, now=NOW, **options):
    """Add a job, lead it to a state that it does not leave by itself, and return it."""
    job = new_job(category=str(state), **options)
    add(store, job, now=now)
    if state is State.CANCELLED:
        cancel(store, job.id, now=now)
        return job
    for _ in range(CRASH_LIMIT if state is State.QUARANTINED else 1):
        [held] = claim(store, category=str(state), now=now)
        reported = State.PENDING if state is State.QUARANTINED else state
        finish(store, outcome(held, reported, ended_at=now), now=now)
    return job

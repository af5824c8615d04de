"""Tasks for the tests of the testing kit. `done` has what they did; each test begins with none."""

import asyncio

from jobsched import (
    Backoff,
    ConcurrencyLimit,
    Discard,
    Retry,
    RetryRule,
    Snooze,
    Unique,
    adispatch,
    current_job,
    default_dispatcher,
    dispatch,
    task,
)

done = []


@task(category="mail")
def note(what, *, twice=False):
    done.append(what)
    return [what, what] if twice else what


@task(category="mail", max_retries=2, backoff=Backoff(base=10, jitter=0.5))
def fail(what="it"):
    done.append(what)
    raise ValueError(f"{what} went wrong")


@task(category="mail", max_retries=3, retry_rules={KeyError: RetryRule(0)}, backoff=Backoff(base=1, jitter=0))
def end_as(how):
    done.append(how)
    match how:
        case "retry":
            raise Retry("busy", after=30)
        case "snooze" if len(done) < 3:
            raise Snooze(60)
        case "discard":
            raise Discard("of no use")
        case "rule":
            raise KeyError("ruled out")
        case "second try" if current_job().attempt == 1:
            raise OSError("not yet")
    return current_job().attempt


@task(category="mail")
def about_me():
    me = current_job()
    print("printed")  # noqa: T201 (what a task prints is kept)
    me.log("logged")
    return [me.id, me.task, me.category, me.attempt, me.deadline and me.deadline.isoformat(), me.name]


@task(category="mail")
def spread(*, atomic=False):
    note.dispatch("one")
    dispatch(note, "reports", args=("two",), atomic=atomic)
    done.append("spread")


@task(category="mail")
def spread_and_fail():
    dispatch(note, args=("never",), atomic=True)
    raise ValueError


@task(category="mail")
async def in_a_loop(what):
    await asyncio.sleep(0)
    job = await adispatch(note, args=(what,))
    return job.id


@task(category="mail")
async def in_a_loop_waiting(what):
    await asyncio.sleep(0)
    return in_a_loop.dispatch(what).result(timeout=1)


@task(category="mail")
def wait_for_note(delay=0, timeout=None):
    return note.options(delay=delay).dispatch("waited for").result(timeout=timeout)


@task(category="narrow")
def wait_in_narrow(depth):
    return wait_in_narrow.dispatch(depth - 1).result() if depth else "deep"


@task(category="mail")
def wait_deep(depth):
    return wait_deep.dispatch(depth - 1).result() if depth else "deep"


@task(category="mail", max_running=1)
def wait_for_my_kind(depth):
    return wait_for_my_kind.dispatch(depth - 1).result() if depth else "deep"


@task(category="mail")
def again():
    again.dispatch()


@task(category="mail", unique=Unique())
def only_one(what):
    done.append(what)


@task(category="mail")
def one_at_a_time(key):
    dispatch(note, args=(key,), limit=ConcurrencyLimit(key, 1))


@task(category="paced")
def paced(what):
    done.append(what)


@task(category="mail", max_running=1)
def alone(what):
    done.append(what)


@task(category="mail", at_most_once=True)
def once(what):
    done.append(what)


@task(category="mail")
def print_around():
    print("before")  # noqa: T201 (what a task prints is kept)
    about_me.dispatch().result()
    print("after")  # noqa: T201 (what a task prints is kept)


@task(category="mail")
def wait_for(task, *args):
    done.append(dispatch(task, "mail", args=args).result())


@task(category="mail")
def cancel(job_id):
    default_dispatcher().cancel([job_id])
    done.append("cancelled it")


@task(category="mail")
def wait_for_my_end():
    cancel.dispatch(current_job().id).result()
    done.append("not reached")


@task(category="mail")
def go_on_for_long():
    go_on()


def go_on():
    """Take time: the test says how much."""


@task(category="mail")
def cancel_me(*, asks=False):
    me = current_job()
    if asks:
        assert not me.cancelled()
    default_dispatcher().cancel([me.id])
    go_on()
    done.append("told" if me.cancelled() else "not told")


@task(category="mail")
async def cancel_me_in_a_loop():
    default_dispatcher().cancel([current_job().id])
    done.append("before")
    await asyncio.sleep(5)
    done.append("after")


@task(category="mail", timeout=10, max_retries=1, backoff=Backoff(base=1, jitter=0))
def take_time():
    try:
        go_on()
    finally:
        done.append("ended")
    return "in time"


@task(category="mail", timeout=10)
async def take_time_in_a_loop():
    try:
        go_on()
    except asyncio.CancelledError:
        done.append("cancelled")
        raise

"""What `jobsched init` writes: a commented categories.toml and a module with three tasks.

In CATEGORIES_TOML a `#` right before a key or a table is a default that can be uncommented; a `#`
and a space before a key is an example of a limit that is off unless it is set.
"""

from __future__ import annotations

__all__ = ["CATEGORIES_TOML", "TASKS_PY"]

CATEGORIES_TOML = """\
# The configuration of jobsched. `jobsched check` shows every problem in it.
# Durations are written "500ms", "30s", "10m", "1h30m", or as a number of seconds; sizes "512MiB",
# "4GiB", or as a number of bytes. Of the keys in comments, those without a space are the defaults.

# Where the jobs are kept: a folder, relative to this file. "memory:" keeps them in the node alone.
store = "lmdb:.jobsched"

# Worker processes in all, shared out among the categories below. Without it: the number of CPUs.
workers = 4

# The modules that define tasks. This file's folder is the first place where they are looked for.
tasks = ["tasks"]

# Functions that are called with every event, in a process of their own.
# hooks = ["hooks:on_event"]

# How long running jobs may take to finish when the node stops. What does not finish runs again.
#grace = "30s"

# New jobs are refused when the store holds this much. Those that it has go on.
#quota = "4GiB"

# The balancer moves workers to where the work is.
#[balancer]
# How often it looks.
#every = "1s"
# What counts: "backlog", the number of waiting jobs, or "work", the time that they will take.
#weigh_by = "backlog"
# A number of workers is kept while it is less than 0.5 + this from the category's ideal share.
#damping = 0.5

# How long jobs that have ended can be looked at, "forever" for no limit.
#[retention]
#completed = "7d"
#failed = "30d"
#cancelled = "7d"
# How many jobs of each of these states are kept at most, the newest, or "all".
#keep = 100000

# Nothing new is started while the machine is busier than this, in percent.
#[pressure]
# max_cpu = 95
# max_memory = 90

# What the built-in task http may reach though it is not public. It is off until `tasks` lists its module,
# "jobsched.tasks.http".
#[http]
# allow = ["10.1.0.0/16", "hooks.internal"]

# A category is a queue with limits of its own: first in, first out.
[categories.mail]
# One waiting job here weighs as much as five in a category of priority 1.
priority = 5
# A worker is kept for it even when it has nothing to do, so a job starts at once.
min_workers = 1
# It never has more than these.
max_workers = 3
# Retries after a failure, with growing waits. A task can set its own number.
max_retries = 5
# A run that takes longer is stopped and counts as failed. Without it: no limit.
timeout = "30s"
# It is stopped by an exception first, and by force if it has not ended after this.
# Without it: half the timeout, at least 0.5 s and at most 10 s.
# kill_after = "5s"
# New jobs are refused while this many wait.
# max_pending = 10000
# At most this many of its jobs start within any minute. Also "5/s", "1000/d", "10/30s".
# rate = "100/m"
# A worker that holds more memory, has run so many jobs or is so old is replaced.
# max_memory = "512MiB"
# max_jobs_per_worker = 1000
# max_worker_age = "1h"

# Only what differs from the defaults needs to be said. These are the defaults:
[categories.reports]
#priority = 1
#min_workers = 0
#max_retries = 0

# A schedule dispatches a task by itself: by `cron`, `every` so often, or once `at` a time. All of its
# keys are in docs/configuration.md; `jobsched schedule --help` says how to look at it.
# [schedules.nightly]
# task = "tasks:word_count"
# category = "reports"
# cron = "30 2 * * *"
# timezone = "Europe/Berlin"
# args = ["tasks.py"]
"""

TASKS_PY = '''\
"""The tasks of this project: functions that workers run.

Start the workers with `jobsched run`. Then, from another shell or any Python program:

    jobsched dispatch tasks:greet --payload '{"name": "Ada"}'

    from tasks import greet
    job = greet.dispatch("Ada")
    print(job.result(timeout=10))
"""

import asyncio
from pathlib import Path

from jobsched import task


@task(category="mail", max_retries=5)
def greet(name: str) -> str:
    """Return a greeting; sending it is left to you."""
    return f"Hello, {name}!"


@task(category="reports")
def word_count(path: str) -> int:
    """Return the number of words in a text file."""
    return len(Path(path).read_text(encoding="utf-8").split())


@task(category="reports", timeout=10)
async def is_open(host: str, port: int = 443) -> bool:
    """Return whether a server accepts connections. Coroutines are tasks too."""
    try:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
    except OSError:
        return False
    return True
'''

"""Tasks on terms, by names that the process of the tests does not know: it does not import this."""

import termed_tasks

from jobsched import task

pair = task(name="unseen_tasks:pair", max_running=2)(termed_tasks.pair.function)
once = task(name="unseen_tasks:once", at_most_once=True)(termed_tasks.once.function)
fail_once = task(name="unseen_tasks:fail_once", at_most_once=True)(termed_tasks.fail_once.function)
